"""Curvature: Hessian-vector products, and what can be estimated from them. One estimator a file.

from secondlook.curvature import Exact, GaussNewtonBartlett, Hutchinson
"""

from secondlook.curvature.exact import Exact
from secondlook.curvature.gauss_newton import GaussNewtonBartlett
from secondlook.curvature.hutchinson import Hutchinson

__all__ = ["Exact", "GaussNewtonBartlett", "Hutchinson"]
