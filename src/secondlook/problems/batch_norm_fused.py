r"""The second derivative of batch norm in three kernels for a GPU: sums over channels, their factors, one pass over images.

The equations are those of `batch_norm`, with the same letters. In memory, images are (outer, C, inner): (B, C, H W) or, where
the channel is the last axis, (B H W, C, 1). Row j of channel c is at (j div inner) C inner + j mod inner + c inner.

    _sums      tile by tile: sums of v, v x^ and v (gy - S) over the rows of a block, for every channel
    _factors   the sum of those over blocks, by_gamma, and seven factors for each channel
    _images    by_gy = f0 v + f1 x + f2    and    by_x = f3 gy + f4 v + f5 x + f6

Sums are in the type of the means, in an order that depends on nothing but shapes. Few of the numbers that describe a shape are
compiled in, as each of their values is a kernel of its own, which takes half a second. Importing this needs Triton, which torch
brings with its builds for CUDA; with TRITON_INTERPRET=1 in the environment, it computes on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # numbers of a tile: 16 for each of a block's 128 threads
BLOCKS = 512  # of rows, at most: several for each of a large GPU's processors
CHANNELS_OF_FACTORS = 8  # so that the sums of all blocks are a small tile
FACTORS = 7


def second_derivative(
    v: Tensor,
    v_gamma: Tensor,
    v_beta: Tensor,
    gy: Tensor,
    x: Tensor,
    gamma: Tensor,
    mean: Tensor,
    r: Tensor,
    n_P: Tensor,
    n_S: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(by_gy, by_x, by_gamma) from images v, gy, x (B, C, H, W) and vectors (C,); images get the layout of x."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    v, gy, x = (images.contiguous(memory_format=layout) for images in (v, gy, x))
    gamma, mean, r, n_P, n_S, v_gamma, v_beta = (t.contiguous() for t in (gamma, mean, r, n_P, n_S, v_gamma, v_beta))
    channels = x.shape[1]
    rows, inner = x.numel() // channels, 1 if last else x.shape[2] * x.shape[3]
    wide = min(triton.next_power_of_2(channels), 64) if last else 1
    tall = TILE // wide
    tiles, across = triton.cdiv(rows, tall), triton.cdiv(channels, wide)
    blocks = min(tiles, BLOCKS)
    sums = mean.new_empty(blocks, 3, channels)
    factors, by_gamma = mean.new_empty(FACTORS, channels), torch.empty_like(gamma)
    by_gy, by_x = torch.empty_like(gy), torch.empty_like(x)

    over = (triton.cdiv(channels, CHANNELS_OF_FACTORS),)
    vectors = (gamma, mean, r, n_P, n_S, v_gamma, v_beta)
    _sums[blocks, across](v, gy, x, mean, r, n_S, sums, rows, channels, inner, triton.cdiv(tiles, blocks), tall, wide)
    _factors[over](sums, *vectors, factors, by_gamma, blocks, rows, channels, BLOCKS, CHANNELS_OF_FACTORS)
    _images[tiles, across](v, gy, x, factors, by_gy, by_x, rows, channels, inner, tall, wide)
    return by_gy, by_x, by_gamma


@triton.jit
def _sums(
    v, gy, x, mean, r, n_S, sums, rows, channels, inner,
    TILES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    kind = mean.dtype.element_ty
    block, blocks = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    here = c < channels
    mean_c, r_c = tl.load(mean + c, mask=here, other=0.0), tl.load(r + c, mask=here, other=0.0)
    S = tl.load(n_S + c, mask=here, other=0.0) / rows
    V = tl.zeros((ROWS, CHANNELS), dtype=kind)
    Q = tl.zeros((ROWS, CHANNELS), dtype=kind)
    M = tl.zeros((ROWS, CHANNELS), dtype=kind)
    for tile in range(TILES):
        j = (block + tile * blocks) * ROWS + tl.arange(0, ROWS)
        at = (j // inner * (channels * inner) + j % inner)[:, None] + (c * inner)[None, :]
        inside = (j < rows)[:, None] & here[None, :]
        v_j = tl.load(v + at, mask=inside, other=0.0).to(kind)  # zero outside, and so is every product
        V += v_j
        Q += v_j * (tl.load(x + at, mask=inside, other=0.0).to(kind) - mean_c[None, :])
        M += v_j * (tl.load(gy + at, mask=inside, other=0.0).to(kind) - S[None, :])
    to = sums + block * 3 * channels + c
    tl.store(to, tl.sum(V, axis=0), mask=here)
    tl.store(to + channels, tl.sum(Q, axis=0) * r_c, mask=here)
    tl.store(to + 2 * channels, tl.sum(M, axis=0), mask=here)


@triton.jit
def _factors(
    sums, gamma, mean, r, n_P, n_S, v_gamma, v_beta, factors, by_gamma,
    blocks, n, channels, BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    here = c < channels
    block = tl.arange(0, BLOCKS)
    at = (block * 3 * channels)[:, None] + c[None, :]
    inside = (block < blocks)[:, None] & here[None, :]
    V = tl.sum(tl.load(sums + at, mask=inside, other=0.0), axis=0) / n
    Q = tl.sum(tl.load(sums + channels + at, mask=inside, other=0.0), axis=0) / n
    k = tl.sum(tl.load(sums + 2 * channels + at, mask=inside, other=0.0), axis=0) / n  # M - S V
    gamma_c, mean_c, r_c = tl.load(gamma + c, mask=here), tl.load(mean + c, mask=here), tl.load(r + c, mask=here)
    P, S = tl.load(n_P + c, mask=here) / n, tl.load(n_S + c, mask=here) / n
    slope = tl.load(v_gamma + c, mask=here) - gamma_c * r_c * Q
    K = k - P * Q
    mean_w = slope * S - gamma_c * r_c * P * V
    bend = r_c * r_c * (slope * P + gamma_c * r_c * (K - P * Q))
    to = factors + c
    tl.store(by_gamma + c, n * r_c * K, mask=here)
    tl.store(to, gamma_c * r_c, mask=here)
    tl.store(to + channels, slope * r_c, mask=here)
    tl.store(to + 2 * channels, tl.load(v_beta + c, mask=here) - gamma_c * r_c * V - slope * r_c * mean_c, mask=here)
    tl.store(to + 3 * channels, slope * r_c, mask=here)
    tl.store(to + 4 * channels, -r_c * gamma_c * r_c * P, mask=here)
    tl.store(to + 5 * channels, -bend, mask=here)
    tl.store(to + 6 * channels, bend * mean_c - r_c * mean_w, mask=here)


@triton.jit
def _images(
    v, gy, x, factors, by_gy, by_x, rows, channels, inner, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    kind = factors.dtype.element_ty
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    here = c < channels
    j = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = (j // inner * (channels * inner) + j % inner)[:, None] + (c * inner)[None, :]
    inside = (j < rows)[:, None] & here[None, :]
    v_j = tl.load(v + at, mask=inside).to(kind)
    gy_j = tl.load(gy + at, mask=inside).to(kind)
    x_j = tl.load(x + at, mask=inside).to(kind)
    f = factors + c
    f0, f1 = tl.load(f, mask=here)[None, :], tl.load(f + channels, mask=here)[None, :]
    f2, f3 = tl.load(f + 2 * channels, mask=here)[None, :], tl.load(f + 3 * channels, mask=here)[None, :]
    f4, f5 = tl.load(f + 4 * channels, mask=here)[None, :], tl.load(f + 5 * channels, mask=here)[None, :]
    f6 = tl.load(f + 6 * channels, mask=here)[None, :]
    tl.store(by_gy + at, f0 * v_j + f1 * x_j + f2, mask=inside)
    tl.store(by_x + at, f3 * gy_j + f4 * v_j + f5 * x_j + f6, mask=inside)
