"""Training a network on data that lives on the device, with any optimiser, so that runs can be compared and resumed.

streams       random numbers: one generator for each use
steps         one step of an optimiser, and what its curvature costs
precision     the type in which a model computes
loop          a run, and the rows of its epochs
turns         several runs in one process, side by side on a GPU
checkpoint    a run on disk, so that one that was killed goes on
rules         what acts between two epochs: on the learning rate, or on the parameters
instruments   how far epochs go, where they point, and what the loss looks like along them
path          what the instruments are made of: points in parameter space
"""

from secondlook.training.checkpoint import Checkpoints
from secondlook.training.loop import Run, train
from secondlook.training.path import Path
from secondlook.training.precision import FLOAT32, Precision
from secondlook.training.steps import captured_step, eager_step, price
from secondlook.training.streams import generator
from secondlook.training.turns import take_turns

__all__ = [
    "FLOAT32",
    "Checkpoints",
    "Path",
    "Precision",
    "Run",
    "captured_step",
    "eager_step",
    "generator",
    "price",
    "take_turns",
    "train",
]
