r"""The way of the parameters through their space, point by point: how far each step goes, and where it points.

    s_i          = theta_i - theta_{i-1}                              step i, from 1, between two points that were recorded
    cos(i, j)    = s_i^T s_j / (|s_i| |s_j|)
    travelled    = sum_i |s_i|,    displacement = |theta_T - theta_0|
    PCA          of theta_0 ... theta_T about their mean: P = U diag(sigma) V^T, ratio_i = sigma_i^2 / sum_j sigma_j^2

Norms, the cosines of neighbours, `travelled` and `displacement` are exact, in the parameters' own type, on their device, and
need four vectors of n numbers. For the cosines of all pairs and for the PCA every step is kept, on the host, in float32 (a
float64 path in float64): T n numbers, or T k of a sketch of size k < n,

    (S x)_b = sum over the entries i in bucket b of sign_i x_i,    bucket and sign of each entry drawn once, uniformly

a random projection that takes n additions, whatever k. For any x and y, over the draw of S,

    E[(S x)^T (S y)] = x^T y
    Var[(S x)^T (S y)] <= 2 |x|^2 |y|^2 / k;  of |S x|^2 it is (2/k) (|x|^4 - sum_i x_i^4)

so that a squared norm is off by more than a share eps with a probability of at most 2 / (k eps^2): the property of Johnson
and Lindenstrauss, by Chebyshev's inequality. With k = 1000 the standard deviation of a squared norm is below 4.5 %, and so is
that of x^T y / (|x| |y|).

Sources: Johnson and Lindenstrauss (1984); Charikar, Chen and Farach-Colton (2004) for the sketch; Weinberger, Dasgupta,
Langford, Smola and Attenberg (2009), "Feature hashing for large scale multitask learning", for its moments; Kane and Nelson
(2014) for sketches whose failures are rarer, at the price of more additions.

Cost of a point: n additions and two inner products; n more additions for a sketch. Memory: 4 n numbers, n more of 8 bytes for
a sketch, T k on the host. Deviations: none. On a GPU the additions of a sketch come in any order, so that its last bits may
differ.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from secondlook.arguments import COUNT, at_least
from secondlook.curvature.vectors import flat


class Sketch:
    """S for vectors x (n,): `sketch(x)` is S x (size,), of the type and device of x. The same `seed` gives the same S."""

    def __init__(self, n: int, size: int, seed: int = 0, device: torch.device | str = "cpu"):
        COUNT.check(size=size)
        self.size = size
        generator = torch.Generator().manual_seed(seed)  # on the host, so that every device sees the same S
        self.signed = torch.randint(2 * size, (n,), generator=generator).to(device)  # bucket, or size + bucket for sign -1

    def __call__(self, x: Tensor) -> Tensor:
        plus, minus = x.new_zeros(2 * self.size).index_add_(0, self.signed, x).split(self.size)
        return plus - minus


class Path:
    """Points theta_0, theta_1, ... of `params`: the first when it is made, one more at every `record()`.

    Arguments:
        params      tensors, n numbers in all
        size        numbers to keep of each step: None for all n; k > 0 for a sketch where k < n; 0 for none
        seed        of the sketch

    >>> w = torch.zeros(2)
    >>> path = Path([w])
    >>> for step in ([3.0, 4.0], [0.0, 5.0]):
    ...     w += torch.tensor(step)
    ...     path.record()
    >>> path.travelled, path.cosine_matrix()
    (10.0, tensor([[1.0000, 0.8000],
            [0.8000, 1.0000]]))
    """

    def __init__(self, params: Iterable[Tensor], size: int | None = None, seed: int = 0):
        self.params = list(params)
        if not self.params:
            raise ValueError("params must hold at least one tensor, got none")
        at_least(0).or_none().check(size=size)
        self.size = size
        self.restart()
        n = len(self.start)
        self.sketch = Sketch(n, size, seed, self.start.device) if size and size < n else None

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all points; the parameters as they are now become theta_0."""
        self.theta = flat([p.detach() for p in self.params])  # (n,)
        self.theta = self.theta.to(torch.promote_types(self.theta.dtype, torch.float32), copy=True)
        self.start = self.theta.clone()
        self.step = torch.full_like(self.theta, math.nan)  # s_T (n,)
        self._spare = torch.empty_like(self.theta)
        self.kept: list[Tensor] = []  # S s_i, or s_i
        self._products: list[Tensor] = []  # (s_i^T s_i, s_i^T s_{i-1}) of each step, on the device: reading waits for it

    @torch.no_grad()
    def record(self) -> None:
        """The parameters as they are now are the next point."""
        theta = torch.cat([p.detach().reshape(-1) for p in self.params], out=self._spare)
        step = torch.sub(theta, self.theta, out=self.theta)
        self._products.append(torch.stack([step @ step, step @ self.step]))
        if self.size != 0:
            self.kept.append(self.sketch(step).cpu() if self.sketch else step.cpu().clone())
        self.theta, self.step, self._spare = theta, step, self.step  # three places, taken in turn

    @torch.no_grad()
    def jump(self) -> None:
        """The last point moves to the parameters as they are now, without a step; the next step has no neighbour."""
        torch.cat([p.detach().reshape(-1) for p in self.params], out=self.theta)
        self.step.fill_(math.nan)

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self._products)

    @property
    def norms(self) -> Tensor:
        """|s_i| (T,), float64 on the host."""
        return self._moments()[:, 0].sqrt()

    @property
    def cosines(self) -> Tensor:
        """cos(i, i - 1) (T,), nan for a step without a neighbour, as the first, and beside a step of length zero."""
        squares, inner = self._moments().T
        before = torch.cat([squares.new_zeros(1), squares[:-1]])
        return inner / (squares * before).sqrt()

    def _moments(self) -> Tensor:
        return torch.stack(self._products).double().cpu() if self._products else torch.zeros(0, 2, dtype=torch.float64)

    @property
    def travelled(self) -> float:
        return self.norms.sum().item()

    @property
    def displacement(self) -> float:
        return (self.theta - self.start).norm().item()

    @property
    def steps(self) -> Tensor:
        """The steps (T, n), or their sketches (T, k)."""
        if self.size == 0:
            raise RuntimeError("size is 0: this path keeps no steps")
        return torch.stack(self.kept)

    def cosine_matrix(self) -> Tensor:
        """cos(i, j) (T, T), of the steps as they are kept; nan where one has length zero."""
        units = self.steps / self.steps.norm(dim=1, keepdim=True)
        return units @ units.T

    def pca(self) -> tuple[Tensor, Tensor]:
        """Coordinates U diag(sigma) (T + 1, r) of the points on their axes, and ratio (r,), r = min(T + 1, k or n)."""
        points = torch.cat([self.steps.new_zeros(1, self.steps.shape[1]), self.steps.cumsum(0)])  # beside theta_0
        U, sigma, _ = torch.linalg.svd(points - points.mean(0), full_matrices=False)
        return U * sigma, sigma**2 / (sigma**2).sum()
