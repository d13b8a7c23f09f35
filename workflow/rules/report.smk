# The paper with its supplement, and the parts of README.md that come from results.


rule paper:
    input:
        RESULTS.claims,
        SUMMARIES,
        [tables(experiment) for experiment in EXPERIMENTS.values()],
        [FIGURES[name] for name in FIGURES],
        [experiment.folder / "section.md" for experiment in EXPERIMENTS.values()],
        [path for path in sorted(Path("report").rglob("*")) if path.is_file() and "readme" not in path.parts],
        code(module("reporting/paper.py")),
    output:
        report(RESULTS.paper[0], caption="../captions/paper.rst", category="Paper"),
        RESULTS.paper[1:],
        RESULTS.pictures,
        RESULTS.page,
        directory(RESULTS.tables),
    log:
        RESULTS.log("paper"),
    resources:
        **ASKS["drawing"],
    shell:
        "{PYTHON} -m secondlook report --scale {SCALE} > {log} 2>&1"


# README.md and VERDICTS.md are tracked: a verdict that changes shows as a diff. They are no declared outputs, for Snakemake
# deletes those.
rule readme:
    input:
        RESULTS.claims,
        SUMMARIES,
        RESULTS.pictures,
        ["report/found.md", "report/verdicts.md"],
        code(module("reporting/readme.py")),
    output:
        touch(RESULTS.readme),
    log:
        RESULTS.log("readme"),
    shell:
        "{PYTHON} -m secondlook readme > {log} 2>&1"


# `snakemake report` builds the paper; `snakemake --report` is Snakemake's own account of the run.
rule report:
    input:
        RESULTS.paper,
