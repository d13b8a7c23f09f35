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


# Recorded results are inputs, never outputs that happen to be there: what is missing or stale stops the workflow.
rule import_recorded:
    input:
        table=RESULTS.recorded("{stage}"),
        record=beside(RESULTS.recorded("{stage}")),
        code=lambda w: code(EXPERIMENTS[STAGES[w.stage].experiment].sources("experiment")),
    output:
        table=RESULTS.raw("{stage}"),
        record=beside(RESULTS.raw("{stage}")),
    log:
        RESULTS.log("import/{stage}"),
    wildcard_constraints:
        stage=one_of(RECORDED),
    params:
        settings=lambda w: STAGES[w.stage].digest,
        experiment=lambda w: STAGES[w.stage].experiment,
        case=lambda w: STAGES[w.stage].case,
    shell:
        "{PYTHON} -m secondlook import {params.experiment} --case {params.case} --out {output.table} > {log} 2>&1"


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
