# From parameters to rows, numbers and verdicts.

# At smoke scale a stage takes less than importing torch, so that all of an experiment's are one job.
if SCALE == "smoke":
    for experiment in EXPERIMENTS.values():

        rule:
            name:
                f"run_{experiment.name}"
            input:
                code(experiment.sources("experiment")),
            output:
                tables(experiment),
            log:
                RESULTS.log(f"run/{experiment.name}"),
            threads: 1
            resources:
                **ASKS["stage"] | {"gpu": int(DEVICE == "cuda")},
            params:
                settings=[STAGES[f"{experiment.name}/{case}"].digest for case in experiment.cases],
                experiment=experiment.name,
            shell:
                "{PYTHON} -m secondlook run {params.experiment} --scale {SCALE} --threads {threads} --device {DEVICE} "
                "--data-root {DATA} > {log} 2>&1"


rule run_stage:
    input:
        lambda w: code(EXPERIMENTS[STAGES[w.stage].experiment].sources("experiment")),
    output:
        table=RESULTS.raw("{stage}"),
        record=beside(RESULTS.raw("{stage}")),
    log:
        RESULTS.log("run/{stage}"),
    wildcard_constraints:
        stage=one_of(set(STAGES) - set(RECORDED) if SCALE == "paper" else []),
    threads: 1
    resources:
        mem_mb=asked("mem_mb"),
        runtime=asked("runtime"),
        gpu=asked("gpu"),
    params:
        settings=lambda w: STAGES[w.stage].digest,
        experiment=lambda w: STAGES[w.stage].experiment,
        case=lambda w: STAGES[w.stage].case,
    shell:
        "{PYTHON} -m secondlook run {params.experiment} --case {params.case} --scale {SCALE} --threads {threads} "
        "--device {DEVICE} --data-root {DATA} --out {output.table} > {log} 2>&1"


# Recorded results are inputs, never outputs that happen to be there: what is missing or stale stops the workflow. All of an
# experiment's are one job, for reading one takes less than starting Python.
for experiment in EXPERIMENTS.values():
    if stages := [stage for stage in RECORDED if STAGES[stage].experiment == experiment.name]:

        rule:
            name:
                f"import_{experiment.name}"
            input:
                [file for stage in stages for file in with_record(RESULTS.recorded(stage))],
                code(experiment.sources("experiment")),
            output:
                [file for stage in stages for file in with_record(RESULTS.raw(stage))],
            log:
                RESULTS.log(f"import/{experiment.name}"),
            localrule: True
            params:
                settings=[STAGES[stage].digest for stage in stages],
                experiment=experiment.name,
                cases=[f"--case {STAGES[stage].case}" for stage in stages],
            shell:
                "{PYTHON} -m secondlook import {params.experiment} {params.cases} > {log} 2>&1"


rule summarise:
    input:
        lambda w: tables(EXPERIMENTS[w.experiment]),
        lambda w: code(EXPERIMENTS[w.experiment].sources("measures"), module("study/measures.py"), module("study/records.py")),
    output:
        RESULTS.summary("{experiment}"),
    log:
        RESULTS.log("summarise/{experiment}"),
    shell:
        "{PYTHON} -m secondlook summarise {wildcards.experiment} --scale {SCALE} > {log} 2>&1"


rule judge:
    input:
        SUMMARIES,
        code(module("study/claims.py")),
        "workflow/schemas/claims.schema.yaml",
        [experiment.folder / "claims.yaml" for experiment in EXPERIMENTS.values()],
    output:
        RESULTS.claims,
    log:
        RESULTS.log("judge"),
    shell:
        "{PYTHON} -m secondlook claims --scale {SCALE} > {log} 2>&1"


# `snakemake claims` prints the verdicts.
rule claims:
    input:
        RESULTS.claims,
    shell:
        "{PYTHON} -m secondlook claims --scale {SCALE} --show"
