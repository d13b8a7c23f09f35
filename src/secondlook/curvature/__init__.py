"""Curvature: Hessian-vector products, and what can be estimated from them. One estimator a file.

products, objective   H v, from the graph of a gradient or of a loss over a data set
diagonal              the diagonal of H in one call; what an estimator is
exact, hutchinson     the diagonal, entry by entry or from probes
gauss_newton          its Gauss-Newton part, from drawn labels
averaging             what AdaHessian makes of an estimate
dense                 all of H, of the Gauss-Newton matrix and of the Fisher matrix
blocks, kronecker     blocks of H, and the factors of K-FAC
trust_region          the least value of a quadratic model within a radius
"""

from secondlook.curvature.diagonal import estimate, hessian_diagonal
from secondlook.curvature.exact import Exact
from secondlook.curvature.gauss_newton import GaussNewtonBartlett
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Composed, Cost, Objective, of_module

__all__ = [
    "Composed",
    "Cost",
    "Exact",
    "GaussNewtonBartlett",
    "Hutchinson",
    "Objective",
    "estimate",
    "hessian_diagonal",
    "of_module",
]
