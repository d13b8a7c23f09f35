"""Real pictures that need no download: the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    x = (pixel - mean) / std,    mean and std over all pixels of all pictures

Source: the test set of Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI repository, by way of
sklearn.datasets.load_digits. Deviations: none.
"""

from functools import cache

import torch
from torch import Tensor

from secondlook.arguments import Must

COUNT = 1797  # pictures
CLASSES = 10
SIDE = 8  # pixels


def digits(examples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`examples` of the pictures (N, 1, 8, 8), float64, and their labels (N,), in an order drawn from `generator`.

    Raises ValueError where there are not so many.
    """
    Must(f"a number from 1 to {COUNT}", lambda x: 0 < x <= COUNT).check(examples=examples)
    x, y = _all()
    chosen = torch.randperm(COUNT, generator=generator)[:examples]
    return x[chosen], y[chosen]


@cache
def _all() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels).double().reshape(COUNT, 1, SIDE, SIDE)
    return (x - x.mean()) / x.std(), torch.from_numpy(labels).long()
