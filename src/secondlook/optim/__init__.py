"""Optimisers, one file each; the docstring of each is its update rule.

from secondlook.optim import AdaHessian
"""

from secondlook.optim.adahessian import AdaHessian

__all__ = ["AdaHessian"]
