"""The discrete Fourier transform as contractions with constant tables of roots of unity.

A signal is `[rows, length, parts]`, with 1 part if it is real and 2 (real, imaginary) if it is complex.
Short lengths are one contraction. A composite length N = A · B is split (Cooley and Tukey 1965) into B
transforms of length A and A transforms of length B; the twiddle factors between the two are part of the
second table. A length with a large prime factor is a circular convolution of a smooth length (Bluestein
1970).
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis

MAX_DENSE = 64
"""Lengths up to this one are a single contraction, and so is each factor of a longer one."""

MAX_PRIME = 512
"""Lengths without small factors are a single contraction up to this one."""

MAX_FOLDED = 1 << 20
"""Twiddle factors become part of a table of at most this many numbers; beyond, they are a product before."""


def roots(places: np.ndarray, length: int, inverse: bool) -> np.ndarray:
    """exp(∓2πi · places / length), from places reduced modulo the length."""
    return np.exp((2j if inverse else -2j) * np.pi * (places % length) / length)


def _table(factors: np.ndarray, parts_in: int, parts_out: int) -> np.ndarray:
    """Complex factors [..., n, k] as a real matrix [..., n · parts_in, k · parts_out]."""
    real, imaginary = factors.real, factors.imag
    rows = [np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)]
    table = np.stack(rows[:parts_in], -3)[..., :parts_out]  # [..., n, parts_in, k, parts_out]
    *batch, n, _, k, _ = table.shape
    return table.reshape(*batch, n * parts_in, k * parts_out)


def _contract(x: Node, factors: np.ndarray, parts: int) -> Node:
    """x [..., m, n, c] times complex factors [..., n, k], as [..., m, k, parts]."""
    *batch, m, n, c = x.shape
    table = build.constant(_table(factors, c, parts), x.dtype)
    product = build.matmul(build.reshape(x, [*batch, m, n * c]), table)
    return build.reshape(product, [*batch, m, factors.shape[-1], parts])


def _second_factor(length: int) -> int:
    """B of length = A · B: at most MAX_DENSE, near the square root of lengths below its square; or 1."""
    divisors = [d for d in range(2, min(MAX_DENSE, length - 1) + 1) if length % d == 0]
    if length > MAX_DENSE**2:
        divisors = [d for d in divisors if d <= MAX_DENSE // 2] or divisors
        return max(divisors, default=1)
    return min(divisors, key=lambda d: d + length // d, default=1)


def fourier(
    x: Node,
    length: int,
    inverse: bool = False,
    bins: int | None = None,
    parts: int = 2,
    scale: float = 1.0,
    window: np.ndarray | None = None,
) -> Node:
    """The first `bins` of the transform of x [rows, length, 1 or 2], times `scale`: [rows, bins, parts].

    A shorter x is filled with zeros. `parts=1` gives the real part only. `window` multiplies the signal.
    """
    bins = length if bins is None else bins
    m, n, c = x.shape
    second = _second_factor(length)
    if length <= MAX_DENSE or (second == 1 and length <= MAX_PRIME):
        factors = roots(np.outer(np.arange(n), np.arange(bins)), length, inverse) * scale
        if window is not None:
            factors *= window[:n, None]
        return _contract(x, factors, parts)
    x = build.pad(x, [0, 0, 0], [0, length - n, 0])
    if second == 1:
        return _bluestein(_windowed(x, window), length, inverse, bins, parts, scale)
    first = length // second
    # sample n = n1 · second + n2, bin k = k1 + first · k2
    split = build.permute(build.reshape(x, [m, first, second, c]), [2, 0, 1, 3])  # [n2, m, n1, c]
    if window is not None and first <= MAX_DENSE:
        factors = roots(np.outer(np.arange(first), np.arange(first)), first, inverse)
        inner = _contract(split, window.reshape(first, second).T[:, :, None] * factors, 2)
    else:
        if window is not None:
            split = build.permute(build.reshape(_windowed(x, window), [m, first, second, c]), [2, 0, 1, 3])
        inner = fourier(build.reshape(split, [second * m, first, c]), first, inverse)
        inner = build.reshape(inner, [second, m, first, 2])
    inner = build.permute(inner, [2, 1, 0, 3])  # [k1, m, n2, 2]
    rows = -(-bins // first)
    k1, n2, k2 = np.arange(first), np.arange(second), np.arange(rows)
    twiddles = roots(np.outer(k1, n2), length, inverse)
    factors = roots(np.outer(n2, k2), second, inverse) * scale
    if 4 * length * second <= MAX_FOLDED:
        outer = _contract(inner, twiddles[:, :, None] * factors, parts)
    else:
        outer = _contract(_times(inner, twiddles[:, None, :]), factors, parts)
    joined = build.reshape(build.permute(outer, [1, 2, 0, 3]), [m, rows * first, parts])
    return build.shrink(joined, [0, 0, 0], [m, bins, parts])


def _windowed(x: Node, window: np.ndarray | None) -> Node:
    if window is None:
        return x
    return build.apply("MUL", x, build.constant(window.reshape(-1, 1), x.dtype))


def _times(x: Node, factors: np.ndarray) -> Node:
    """x [..., 2 (or 1)] times complex constants that broadcast to its other axes: [..., 2]."""
    rank, shape = len(x.shape), (*x.shape[:-1], 2)
    real, imaginary = (
        build.expand(build.constant(np.stack(pair, -1), x.dtype), shape)
        for pair in ((factors.real, factors.real), (-factors.imag, factors.imag))
    )
    if x.shape[-1] == 1:
        both = build.constant(np.stack([factors.real, factors.imag], -1), x.dtype)
        return build.apply("MUL", x, both)
    places = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    swapped = build.view(x, [*places[: rank - 1], 1 - places[rank - 1]], shape)
    return elementwise("ADD", elementwise("MUL", x, real), elementwise("MUL", swapped, imaginary))


def _smooth_length(least: int) -> int:
    """The smallest 2^a · 3^b · 5^c that is at least `least`."""
    best = 1 << (least - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            rest = -(-least // threes)
            best = min(best, threes << (rest - 1).bit_length())
            threes *= 3
        fives *= 5
    return best


def _bluestein(x: Node, length: int, inverse: bool, bins: int, parts: int, scale: float) -> Node:
    """With nk = (n² + k² - (k - n)²) / 2 the transform is a convolution with a chirp between two products."""
    places = np.arange(length)
    chirp = roots(places * places, 2 * length, inverse)  # numbers below 2^62 for any length in memory
    size = _smooth_length(2 * length - 1)
    kernel = np.zeros(size, complex)
    kernel[:length] = chirp.conj()
    kernel[size - length + 1 :] = chirp[:0:-1].conj()
    spectrum = fourier(_times(x, chirp), size)
    # the convolution is circular over `size`, and only its first `length` results are wanted
    product = _times(spectrum, np.fft.fft(kernel) / size)
    convolved = fourier(product, size, inverse=True, bins=bins)
    result = _times(convolved, chirp[:bins] * scale)
    return build.shrink(result, [0, 0, 0], [x.shape[0], bins, parts])


def real_inverse(x: Node, length: int) -> Node:
    """The real signal [rows, length, 1] whose spectrum begins with x [rows, length // 2 + 1, 2]."""
    m, bins, _ = x.shape
    if length <= 2 * MAX_DENSE:
        twice = np.full(bins, 2.0)
        twice[0] = 1
        if length % 2 == 0:
            twice[-1] = 1
        places = np.outer(np.arange(bins), np.arange(length))
        return _contract(x, roots(places, length, True) * twice[:, None] / length, 1)
    # the other half is the conjugate of the first one, backwards
    rest = build.flip(build.shrink(x, [0, 1, 0], [m, length - bins + 1, 2]), [1])
    conjugate = build.apply("MUL", rest, build.constant([1, -1], x.dtype))
    return fourier(build.concat([x, conjugate], 1), length, True, parts=1, scale=1 / length)
