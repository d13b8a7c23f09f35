"""Optimisers, one file each; the docstring of each is its update rule.

from secondlook.optim import AdaBelief, AdaHessian, OASIS, Sophia
"""

from secondlook.optim.adabelief import AdaBelief
from secondlook.optim.adahessian import AdaHessian
from secondlook.optim.oasis import OASIS
from secondlook.optim.sophia import Sophia

__all__ = ["OASIS", "AdaBelief", "AdaHessian", "Sophia"]
