"""Einsum against numpy: implicit results, ellipses, diagonals, repeated letters, more than two operands."""

import numpy as np
import pytest
from onnx_models import run_op
from test_onnx_operators import RNG, compare, uniform

EQUATIONS = [
    ("ij->ji", (2, 3)),
    ("ba", (2, 3)),
    ("ijk->", (2, 3, 4)),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("iji->j", (3, 2, 3)),
    ("...ii->...i", (2, 3, 3)),
    ("i...->...i", (2, 3, 4)),
    ("...ba", (4, 2, 3)),
    ("...,...", (2, 3), (2, 3)),
    ("...ij,...jk", (2, 3, 4, 5), (3, 5, 2)),
    ("...ij,jk->...ik", (6, 2, 3, 4), (4, 5)),
    ("b...,b...->b...", (2, 3), (2, 3)),
    ("i,j", (4,), (3,)),
    (",i->i", (), (3,)),
    ("iji,i->ij", (3, 2, 3), (3,)),
    ("ii,ii->i", (3, 3), (3, 3)),
    ("ij , jk -> ik", (2, 3), (3, 4)),
    ("Ab,bC->AC", (2, 3), (3, 4)),
    ("ij,kj->ik", (2, 1), (4, 3)),
    ("ijkl,jl->ik", (2, 3, 4, 5), (3, 5)),
    ("a,ab,abc->abc", (2,), (2, 3), (2, 3, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
]


@pytest.mark.parametrize("equation,shapes", [(e, s) for e, *s in EQUATIONS], ids=[e for e, *_ in EQUATIONS])
def test_equations(equation, shapes):
    inputs = [np.asarray(uniform(*s, dtype="float64")) for s in shapes]
    (y,) = run_op("Einsum", inputs, opset=12, equation=equation)
    expected = np.einsum(equation.replace(" ", ""), *inputs)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_types(dtype):
    inputs = [RNG.integers(-9, 9, s).astype(dtype) for s in ((2, 3), (3, 4))]
    compare("Einsum", inputs, opset=12, equation="ij,jk->ik")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float64"])
def test_shrink_of_integers_truncates(dtype):
    x = RNG.integers(0 if dtype == "uint8" else -50, 50, (4, 5)).astype(dtype)
    compare("Shrink", [x], opset=9, lambd=0.7, bias=0.3)
