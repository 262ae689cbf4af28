"""Contractions that accumulate int32: every tile and tail gives the oracle's bits, wrapped sums too."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import check

from tinyinfer.backends.cpu.target import named_target
from tinyinfer.ir import build
from tinyinfer.kernels.assign import MINIMUM_ROWS_TO_COPY


def products(rows, length, columns, constant, seed=0):
    """A matrix product of centred bytes, and its feeds."""
    rng = np.random.default_rng(seed)
    a = build.input_node("a", (rows, length), "uint8")
    centred = build.apply("SUB", build.cast(a, "int32"), build.scalar(100, "int32"))
    values = rng.integers(-128, 128, (length, columns)).astype(np.int8)
    feeds = {"a": rng.integers(0, 256, (rows, length)).astype(np.uint8)}
    if constant:
        b = build.constant(values.astype(np.int32))
    else:
        b, feeds["b"] = build.cast(build.input_node("b", values.shape, "int8"), "int32"), values
    return build.matmul(centred, b), feeds


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("shape", [(1, 40, 33), (7, 3, 16), (30, 20, 50), (MINIMUM_ROWS_TO_COPY, 130, 5)])
def test_matrix_products(shape, constant):
    total, feeds = products(*shape, constant)
    check([total], feeds)


def test_with_an_epilogue():
    total, feeds = products(20, 30, 40, True)
    scaled = build.apply("MUL", build.cast(total, "float32"), build.scalar(0.001, "float32"))
    check([build.cast(build.elementwise("ROUND", scaled), "int8"), total], feeds)


def test_vectors_of_two_registers():
    target = named_target("x86_64-v3")
    if target.architecture != named_target("host").architecture:
        pytest.skip("code for x86_64 does not run here")
    total, feeds = products(9, 20, 21, True)
    check([total], feeds, target=target)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions(group):
    rng = np.random.default_rng(group)
    x = build.cast(build.input_node("x", (2, 8, 9, 7), "int8"), "int32")
    w = build.constant(rng.integers(-128, 128, (12, 8 // group, 3, 3)).astype(np.int32))
    y = build.convolution(x, w, (2, 1), (1, 2), (1, 0), (1, 2), group)
    check([y], {"x": rng.integers(-128, 128, (2, 8, 9, 7)).astype(np.int8)})


def test_sums_wrap_around():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-(1 << 31), 1 << 31, shape).astype(np.int32) for shape in ((8, 50), (50, 20)))
    total = build.matmul(build.input_node("a", a.shape, "int32"), build.constant(b))
    check([total], {"a": a})
