"""The text: read and checked, or generated; cut into windows of characters that never overlap.

A text has three parts, in its order: one to train on, one to validate, one to test. The vocabulary is that of the training
part, in the order of code points, with one symbol more for all characters that only the other parts have. A window is
`length` + 1 characters: the model sees all but the last, and each position is to name the character after it. Windows begin at
even distances, so that a few of them represent the whole part.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondlook.errors import Mistake
from secondlook.study.files import read, sha256
from secondlook.training.loop import Data

NAME = "tinyshakespeare.txt"
PARTS = ("train", "validation", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz "  # of a generated text
LIKELY = 0.9  # share of letters there that follow from the one before


@dataclass(frozen=True)
class Windows:
    """`train`, `validation`, `test`: pairs (x, y) of codes (windows, length), y one character ahead. `vocabulary`: how many
    codes there are."""

    vocabulary: int
    train: Data
    validation: Data
    test: Data


def windows(text: str, shares: tuple[float, ...], counts: tuple[int, ...], length: int) -> Windows:
    """`counts` windows of the three parts, whose sizes are to the text's as `shares`. Mistake where they do not fit."""
    ends = [round(sum(shares[: i + 1]) / sum(shares) * len(text)) for i in range(len(PARTS))]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    known = {character: code for code, character in enumerate(sorted(set(parts[0])))}
    others = len(known)
    cut = {}
    for name, part, count in zip(PARTS, parts, counts, strict=True):
        apart = len(part) // count
        if apart < length + 1:
            raise Mistake(
                f"{count} windows of {length + 1} characters do not fit into the text's part '{name}': it has {len(part)}"
            )
        codes = torch.tensor([known.get(character, others) for character in part])
        found = codes.unfold(0, length + 1, apart)[:count]  # (count, length + 1)
        cut[name] = (found[:, :-1].contiguous(), found[:, 1:].contiguous())
    return Windows(others + 1, **cut)


def original(path: Path, expected: str) -> str:
    """The text of the file `path`. Raises Mistake where it is missing, or not the one with this digest."""
    if not path.is_file():
        raise Mistake(f"data set {path} is missing: name its folder with --data-root or SECONDLOOK_DATA, or put it there")
    content = read(path)
    found = sha256(content)
    if found != expected:
        raise Mistake(f"{path} is corrupt or truncated: sha256 {found} ({len(content)} bytes), expected {expected}")
    return content.decode()


def generated(characters: int) -> str:
    """A chain of letters, most of which follow from the one before: no substitute for a text, but a way to try everything
    out."""
    source = np.random.default_rng(0)
    after = source.permutation(len(LETTERS))
    drawn, kept = source.integers(len(LETTERS), size=characters), source.random(characters) < LIKELY
    codes = [0]
    for code, follows in zip(drawn, kept, strict=True):
        codes.append(after[codes[-1]] if follows else code)
    return "".join(LETTERS[code] for code in codes[1:])


def entropies(vocabulary: int, train: Data, judged: Data) -> dict[str, float]:
    """Bits per character on `judged` of the two models that count: how often a character is in `train`, alone and after the one
    before; every count is one more than it is, so that none is zero."""
    pairs = torch.ones(vocabulary, vocabulary, dtype=torch.float64)
    pairs.index_put_((train[0].flatten(), train[1].flatten()), torch.ones((), dtype=torch.float64), accumulate=True)
    x, y = (part.flatten() for part in judged)
    single = pairs.sum(0)
    return {"unigram_bits": _bits((single / single.sum())[y]), "bigram_bits": _bits((pairs / pairs.sum(1, keepdim=True))[x, y])}


def _bits(p: Tensor) -> float:
    return -p.log2().mean().item()
