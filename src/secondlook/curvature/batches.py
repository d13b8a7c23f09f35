"""Data that a loss is summed over: batches (x, y) that can be gone through again and again, and how many examples they hold.

    data = (x, y)                       one batch; [x, y] too, as a DataLoader makes it
    data = [(x_1, y_1), (x_2, y_2)]     several: a list, a DataLoader, or anything else that can be gone through again

x and y are tensors with the examples in front, or tuples, lists and mappings of them, as a tokeniser makes. Two pairs are
always two batches: one batch of two inputs and two targets is written [((a, b), (c, d))].

A data set of single examples goes into a DataLoader. Every pass must meet the same examples. An iterator is refused, because it
does not; a pass of another number of examples than the first is an error. A loader that shuffles and drops the last batch, or
augments, makes another loss of every pass: nothing here can tell.
"""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

Nested = object  # a tensor, or tuples, lists and mappings of them


class Batches:
    """The batches of `data`, of `examples` in all. Raises TypeError or ValueError for what is no such data.

    >>> import torch
    >>> batches = Batches([(torch.ones(3, 2), torch.ones(3)), ({"ids": torch.ones(1, 2)}, torch.ones(1))])
    >>> batches.examples
    4
    """

    def __init__(self, data: object):
        if isinstance(data, Iterator):
            raise TypeError(f"data is used up by one pass ({type(data).__name__}): hand over list(data)")
        if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            raise TypeError(
                f"data is a set of single examples ({type(data).__name__}): hand over DataLoader(data, batch_size=...)"
            )
        if not isinstance(data, Iterable):
            raise TypeError(f"data must be a batch (x, y) or several, got {type(data).__name__}")
        one = _is_pair(data) and not all(map(_is_pair, data))
        if isinstance(data, list) and len(data) == 2 and all(isinstance(half, Mapping) for half in data):
            one = False  # two batches, neither a pair
        self._data = [data] if one else data
        self.examples = 0  # N; known after the first pass
        self.examples = sum(count(x) for x, _ in self)
        if not self.examples:
            raise ValueError("data holds no examples; what one pass uses up is empty in the next")

    def __iter__(self) -> Iterator[tuple[Nested, Nested]]:
        seen = 0
        for batch in self._data:
            if not _is_pair(batch):
                raise TypeError(f"a batch must be a pair (x, y) of inputs and targets, got {_described(batch)}")
            x, y = batch
            seen += count(x)
            yield x, y
        if self.examples not in (0, seen):
            raise RuntimeError(f"data had {self.examples} examples in the first pass and {seen} in this one: is it used up?")


def count(x: Nested) -> int:
    """The examples in the inputs x of a batch. Raises TypeError where its tensors disagree, or are none."""
    lengths = {len(t) for t in _tensors(x) if t.dim()}
    if len(lengths) != 1:
        found = " and ".join(map(str, sorted(lengths))) or "no tensor"
        raise TypeError(f"inputs need tensors with the examples in front, got {_described(x)} of {found}")
    return lengths.pop()


def apart(batch: tuple[Nested, Nested], who: str) -> tuple[Tensor, Tensor]:
    """x and y for `who` takes the examples of a batch one by one. Raises TypeError unless they are tensors of one length."""
    x, y = batch
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        other = y if isinstance(x, Tensor) else x
        raise TypeError(f"{who} takes batches apart: inputs and targets must be one tensor each, got {_described(other)}")
    if not y.dim() or len(x) != len(y):
        raise TypeError(
            f"{who} takes batches apart: got inputs {tuple(x.shape)} and targets {tuple(y.shape)}, of other examples"
        )
    return x, y


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _tensors(x: Nested) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Mapping | tuple | list):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from _tensors(part)


def _described(value: object) -> str:
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{name} with {', '.join(map(str, value))}"
    return f"{name} of {len(value)}" if isinstance(value, tuple | list) else name
