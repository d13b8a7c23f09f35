# Two rules for each experiment: its figures, and a target of its own name (`snakemake newton_toy`).

for experiment in EXPERIMENTS.values():

    rule:
        name:
            f"figures_{experiment.name}"
        input:
            tables(experiment),
            code(experiment.sources("figures"), module("reporting/style.py"), module("study/records.py")),
        output:
            [
                (
                    report(
                        file,
                        caption="../captions/figure.rst",
                        category=experiment.title,
                        labels={"figure": Path(file).stem, "shows": experiment.figures[Path(file).stem].text.splitlines()[0]},
                    )
                    if file.endswith((".svg", ".gif"))
                    else file
                )
                for file in FIGURES[experiment.name]
            ],
        log:
            RESULTS.log(f"figures/{experiment.name}"),
        resources:
            **ASKS["drawing"],
        params:
            experiment=experiment.name,
        shell:
            "{PYTHON} -m secondlook figure {params.experiment} --scale {SCALE} > {log} 2>&1"

    rule:
        name:
            experiment.name
        input:
            FIGURES[experiment.name],
            tables(experiment),
            RESULTS.summary(experiment.name),
