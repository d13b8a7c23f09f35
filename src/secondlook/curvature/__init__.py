"""Curvature: Hessian-vector products, and what can be estimated from them. One estimator a file.

products, dense     H v; all of H, of the Gauss-Newton matrix and of the Fisher matrix
exact, hutchinson   the diagonal, entry by entry or from probes
gauss_newton        its Gauss-Newton part, from drawn labels
averaging           what AdaHessian makes of an estimate
blocks, kronecker   blocks of H, and the factors of K-FAC
trust_region        the least value of a quadratic model within a radius
"""

from secondlook.curvature.exact import Exact
from secondlook.curvature.gauss_newton import GaussNewtonBartlett
from secondlook.curvature.hutchinson import Hutchinson

__all__ = ["Exact", "GaussNewtonBartlett", "Hutchinson"]
