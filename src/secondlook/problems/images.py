r"""CIFAR-10 as one array in memory, and the augmentation of its images a batch at a time, on the device they lie on.

The array file is `cifar10.npy`, uint8, (60000, 3, 32, 32): first the training images, then the test images, in an order that
makes labels and balanced subsets free of charge. Within each of the two,

    image 10 k + c  is the k-th image of class c,    so    label(i) = i mod 10,

and every multiple of ten images from the front holds as many of each class. `cifar10.json` beside it has the file's sha256, its
size, and the images' origin. `python -m secondlook data` writes both, in this order from whatever source.

Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images". Deviations: the order of the images; and the
pixels, where `origin` is not 'original'.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secondlook.errors import Mistake

ARRAY, RECORD = "cifar10.npy", "cifar10.json"
# In the order of their labels, which is that of the alphabet.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNT = {"train": 50_000, "test": 10_000}  # images
SHAPE = (3, 32, 32)  # of an image: red, green, blue; rows; columns
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of pixels in [0, 1]: AdaHessian's paper
PAD = 4  # black pixels around an image before it is cropped: the same paper


@dataclass(frozen=True)
class Images:
    """`train`, `test`: uint8, (N, 3, 32, 32); their labels: int64, (N,). `origin` and `sha256` are those of the array file."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    origin: str
    sha256: str

    def first(self, train: int, test: int) -> "Images":
        """The first images of either set: the declared subset. ValueError unless it is balanced and there are so many."""
        for name, count, images in (("train", train, self.train), ("test", test, self.test)):
            if not 0 < count <= len(images) or count % len(CLASSES):
                raise ValueError(f"{name} must be a multiple of {len(CLASSES)} up to {len(images)}, got {count}")
        kept = (self.train[:train], self.train_labels[:train], self.test[:test], self.test_labels[:test])
        return Images(*kept, self.origin, self.sha256)

    def validation(self, count: int) -> "Images":
        """The last `count` training images in place of the test set, for choosing settings. ValueError as in `first`."""
        if not 0 < count < len(self.train) or count % len(CLASSES):
            raise ValueError(f"count must be a multiple of {len(CLASSES)} below {len(self.train)}, got {count}")
        rest, held = (self.train[:-count], self.train_labels[:-count]), (self.train[-count:], self.train_labels[-count:])
        return Images(*rest, *held, self.origin, self.sha256)

    def to(self, device: torch.device | str) -> "Images":
        """The same on another device."""
        names = ("train", "train_labels", "test", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def cifar10(path: Path) -> Images:
    """The images of the array file `path`, which is checked against the record beside it. They lie in the page cache.

    Raises Mistake where the file is missing, damaged or of another shape. Cost: one reading of 184 MB.
    """
    path, record = Path(path), Path(path).with_name(RECORD)
    if not (path.is_file() and record.is_file()):
        raise Mistake(f"data set {path} is missing: run 'snakemake data', or put it there")
    try:
        made = json.loads(record.read_bytes())
        expected, origin = made["sha256"], made["origin"]
    except (ValueError, KeyError, TypeError) as error:
        raise Mistake(f"{record} is damaged: run 'snakemake data'") from error
    found = sha256(path)
    if found != expected:
        raise Mistake(f"{path} is corrupt or truncated: sha256 {found} ({path.stat().st_size} bytes), expected {expected}")
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # copied where written to: the file never changes
    except (ValueError, EOFError) as error:
        raise Mistake(f"{path} is no array file: run 'snakemake data'") from error
    shape = (sum(COUNT.values()), *SHAPE)
    if array.dtype != np.uint8 or array.shape != shape:
        raise Mistake(f"{path} must hold uint8 of shape {shape}, got {array.dtype} of shape {array.shape}")
    train, test = torch.from_numpy(array).split(list(COUNT.values()))
    return Images(train, _labels(len(train)), test, _labels(len(test)), origin, found)


def sha256(path: Path) -> str:
    """The digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _labels(count: int) -> Tensor:
    return torch.arange(count) % len(CLASSES)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image (of (B, 3, H, W), any type) padded by PAD zeros, cropped back at random, and mirrored with probability 1/2.

    Zeros are black before `normalise`, as in the paper's pipeline. `generator` is on the images' device; the numbers drawn do
    not depend on the pixels. Cost: one gather; no loop over images.
    """
    count, channels, height, width = images.shape
    across, device = width + 2 * PAD, images.device
    draw: dict[str, Any] = {"generator": generator, "device": device}
    top, left = torch.randint(0, 2 * PAD + 1, (2, count, 1), **draw)
    mirrored = torch.randint(0, 2, (count, 1), **draw).bool()
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = top + rows  # (B, H)
    columns = left + torch.where(mirrored, columns.flip(0), columns)  # (B, W)
    pixels = (rows[:, :, None] * across + columns[:, None, :]).flatten(1)  # (B, H W), into an image of the padded size
    padded = functional.pad(images, (PAD,) * 4).flatten(2)  # (B, 3, (H + 2 PAD) (W + 2 PAD))
    return padded.gather(2, pixels[:, None].expand(-1, channels, -1)).reshape(images.shape)


def normalise(images: Tensor) -> Tensor:
    """(images / 255 - MEAN) / STD by channel: uint8 (B, 3, H, W) to float32 of the same shape."""
    scale, shift = _affine(images.device)
    return torch.addcmul(shift, images, scale)


@cache
def _affine(device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale 1 / (255 STD) and shift -MEAN / STD of a pixel, (3, 1, 1) each. Kept, as copying them to a GPU makes it wait."""
    mean, std = (torch.tensor(x, dtype=torch.float64).reshape(-1, 1, 1) for x in (MEAN, STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)
