"""Second Look: a second look at second-order optimisation.

Notation, the same in code, figures and report:

    theta   parameters, n numbers in all         g   gradient of the loss at theta
    H       Hessian, n x n                       D   diagonal of H, or an estimate of it
    z       probe vector, E[z z^T] = I           s   number of probes
    m, v    running means of g and of D^2        t   step, counted from 1
    lr      learning rate                        k   Hessian power

The folders, from mathematics to paper:

    optim       optimisers, one file each
    curvature   Hessian-vector products and estimators of curvature
    problems    functions whose minimum and Hessian are known; networks and data sets
    training    the loop, checkpoints, what a run costs
    study       what makes a number evidence: parameters, records, statistics, claims
    reporting   figures and paper (never imports torch)
"""

__version__ = "0.1.0"
