"""Optimisers, one file each; the docstring of each is its update rule.

AdaHessian, OASIS and Sophia take an estimator of the Hessian's diagonal from `secondlook.curvature`; Newton takes a direction
from here (Plain, Damped, LevenbergMarquardt, Absolute, TrustRegion).
"""

from secondlook.optim.adabelief import AdaBelief
from secondlook.optim.adahessian import AdaHessian
from secondlook.optim.compiled import compiled_step
from secondlook.optim.directions import Absolute, Damped, Eigen, LevenbergMarquardt, Plain, Steihaug, TrustRegion
from secondlook.optim.distributed import data_parallel
from secondlook.optim.kfac import KFAC
from secondlook.optim.newton import Newton
from secondlook.optim.oasis import OASIS
from secondlook.optim.placement import Placement
from secondlook.optim.sophia import Sophia

__all__ = [
    "KFAC",
    "OASIS",
    "Absolute",
    "AdaBelief",
    "AdaHessian",
    "Damped",
    "Eigen",
    "LevenbergMarquardt",
    "Newton",
    "Placement",
    "Plain",
    "Sophia",
    "Steihaug",
    "TrustRegion",
    "compiled_step",
    "data_parallel",
]
