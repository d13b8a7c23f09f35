"""Curvature: products of a Hessian with vectors, and what can be estimated from them. Each estimator has a file of its own.

products, objective     H v, from the graph of a gradient or of a loss over a data set; what forms a loss may have
gauss_newton_product    G v, the Gauss-Newton matrix of such a loss
diagonal, source        the diagonal of H in one call; what an estimator is, and what it may ask for

Estimators of the diagonal. The second column is the source that an estimator declares. The third is what s probes cost, in
products with H, each of which is as dear as two gradients.

exact                   graph       n               every entry by a product of its own
hutchinson, bekas       graph       s               probes of signs or normal numbers; bekas divides by the probes' own squares
xdiag, diag_plus_plus   graph       budget          a low-rank part exactly, the rest from probes
layer_wise              graph       tensors x s     another estimator, applied to one parameter tensor after the other
averaged                that of the other estimator whose D it averages over blocks
mean_square             graph       s               AdaHessian's average of squares, which tends to the norm of a row
per_example             objective   s               a probe for every example, or for every group of examples
preactivations          layers      about s / 2     probes at the layers' sums; enough of them are exact
finite_differences      objective   order x s / 2   another estimator, with products from differences of gradients
gauss_newton_diagonal   layers      about C / 3     the Gauss-Newton part, exact or from draws; all of a piecewise linear net
gauss_newton            logits      1/3             the Gauss-Newton part of a classifier from labels that the model draws

averaging               the means over blocks that AdaHessian takes
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
