# Every figure, verdict and page from its sources. Rules only name files and call `python -m secondlook VERB`, which does the work.

from snakemake.utils import min_version

min_version("9.27")  # the one that requirements.lock installs; profiles and options are of this series


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        RESULTS.paper,
        RESULTS.page,
        README,
        [FIGURES[name] for name in FIGURES],
        [tables(experiment) for experiment in EXPERIMENTS.values()],  # named, so that one that was removed is made again
        RECORDED_FILES,


onsuccess:
    end_timers()


onerror:
    end_timers()
