"""Random signs at one random bit each: a probe of n signs is n / 64 random words.

z_i = 2 bit_{i mod 64}(w_{i div 64}) - 1,    bit 0 the lowest
"""

import functools
import math

import torch
from torch import Tensor


def random_words(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """int64 words with n random bits or more."""
    words = torch.empty(math.ceil(n / 64), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator)


def signs(words: Tensor, dtype: torch.dtype) -> Tensor:
    """64 signs for every word, looked up by bytes: the quickest where operations run one by one."""
    return _signs_of_bytes(words.device, dtype).index_select(0, words.view(torch.uint8).int()).view(-1)


def signs_by_shifts(words: Tensor, dtype: torch.dtype) -> Tensor:
    """The same by arithmetic, for a compiler to fuse into what uses them."""
    bits = words.view(torch.int32)[:, None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1  # (2 words, 32)
    return (bits * 2 - 1).to(dtype).view(-1)


@functools.cache
def _signs_of_bytes(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(256, 8): row b holds the bits of b as signs."""
    b, bit = torch.arange(256, device=device), torch.arange(8, device=device)
    return ((b[:, None] >> bit & 1) * 2 - 1).to(dtype)
