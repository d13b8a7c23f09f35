"""Curvature: Hessian-vector products, and what can be estimated from them. One estimator a file.

products, objective     H v, from the graph of a gradient or of a loss over a data set; what forms a loss may have
gauss_newton_product    G v, the Gauss-Newton matrix of such a loss
diagonal                the diagonal of H in one call; what an estimator is

Estimators of the diagonal: what they take, and products for s probes
exact                   operator    n               every entry
hutchinson, bekas       operator    s               signs or normal numbers; what these weigh divided out
xdiag, diag_plus_plus   operator    budget          a low-rank part exactly, the rest from probes
layer_wise              operator    tensors x s     another estimator, tensor by tensor
averaged, mean_square   operator    s               block means of another; AdaHessian's average, whose limit is the row norm
per_example             objective   s               a probe for every example, or group of them
preactivations          layers      about s / 2     probes at the layers' sums; exact from enough of them
finite_differences      objective   order x s / 2   another estimator, on gradients alone
gauss_newton_diagonal   outputs     about C / 3     the Gauss-Newton part, exact or from draws; of a piecewise linear net, all
gauss_newton            logits      1/2             the same from drawn labels

averaging               what AdaHessian makes of an estimate
dense                   all of H, of the Gauss-Newton matrix and of the Fisher matrix
spectrum                eigenvalues, their density, trace, condition number
blocks, kronecker       blocks of H, which `Newton(blocks=...)` takes, and the factors of K-FAC
trust_region            the least value of a quadratic model within a radius
batches, vectors        data in batches; parameters as one vector

Every function of a Hessian takes its loss in the forms of `hessian_of`. Examples begin with

    import torch
    from secondlook.curvature import *
    from secondlook.optim import *
"""

from secondlook.curvature import blocks, dense
from secondlook.curvature.averaged import Averaged
from secondlook.curvature.bekas import Bekas
from secondlook.curvature.diag_plus_plus import DiagPlusPlus
from secondlook.curvature.diagonal import Diagonal, estimate, hessian_diagonal
from secondlook.curvature.exact import Exact
from secondlook.curvature.finite_differences import FiniteDifferences
from secondlook.curvature.gauss_newton import GaussNewtonBartlett
from secondlook.curvature.gauss_newton_diagonal import GaussNewtonDiagonal
from secondlook.curvature.gauss_newton_product import GaussNewton
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.kronecker import kronecker_factors
from secondlook.curvature.layer_wise import LayerWise
from secondlook.curvature.mean_square import MeanSquare
from secondlook.curvature.objective import Composed, Cost, Objective, hessian_of, of_module
from secondlook.curvature.per_example import PerExample
from secondlook.curvature.preactivations import Preactivations
from secondlook.curvature.products import GraphHessian, Operator, hvp
from secondlook.curvature.source import GraphLogits, Source
from secondlook.curvature.spectrum import condition_number, eigenpairs, spectral_density, trace
from secondlook.curvature.trust_region import steihaug, trust_region_step
from secondlook.curvature.xdiag import XDiag

__all__ = [
    "Averaged",
    "Bekas",
    "Composed",
    "Cost",
    "DiagPlusPlus",
    "Diagonal",
    "Exact",
    "FiniteDifferences",
    "GaussNewton",
    "GaussNewtonBartlett",
    "GaussNewtonDiagonal",
    "GraphHessian",
    "GraphLogits",
    "Hutchinson",
    "LayerWise",
    "MeanSquare",
    "Objective",
    "Operator",
    "PerExample",
    "Preactivations",
    "Source",
    "XDiag",
    "blocks",
    "condition_number",
    "dense",
    "eigenpairs",
    "estimate",
    "hessian_diagonal",
    "hessian_of",
    "hvp",
    "kronecker_factors",
    "of_module",
    "spectral_density",
    "steihaug",
    "trace",
    "trust_region_step",
]
