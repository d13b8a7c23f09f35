"""What a training loop keeps: nodes of the automatic-differentiation graph, and bytes of memory."""

import ctypes
import math
from collections.abc import Iterable

from torch import Tensor


def nodes(tensors: Iterable[Tensor | None]) -> int:
    """Number of distinct graph nodes from which the tensors were computed, their own included."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor is not None]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return len(seen)


class _Mallinfo(ctypes.Structure):
    """The C library's `struct mallinfo2`, see mallinfo(3)."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def heap() -> float:
    """Bytes that this process has allocated and not freed, as the GNU C library counts them: tensors on the CPU, graph nodes
    and everything else. NaN where another C library is in use."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return math.nan
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return float(found.uordblks + found.hblkhd)
