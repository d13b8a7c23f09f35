# The array file of CIFAR-10. Only `snakemake data` makes it: no rule asks for it, so that nothing is downloaded unasked.


rule data:
    output:
        "data/cifar10.npy",
        "data/cifar10.json",
    log:
        RESULTS.log("data"),
    shell:
        "{PYTHON} -m secondlook data --data-root {DATA} > {log} 2>&1"
