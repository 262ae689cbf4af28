"""Expansion of EXP, LOG, SIN, COS, TANH, ERF, SIGMOID and POW into the plain elementwise ops of `ir.ops`.

Devices without good instructions or libraries for them expand a kernel's expressions with `expand_all` and
need to print only arithmetic, comparisons, conversions and bit operations. The results are branch-free, so
that a vector of any width computes them lane by lane.

Accuracy: float32 within 2 ulp over the whole range, subnormals and special values included, given IEEE
arithmetic with subnormals and a fused MULACC; float64 about 1e-15 relative; float16 and bfloat16 are computed
in float32.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyinfer.ir.ops import TRANSCENDENTAL
from tinyinfer.kernels.access import rebuild
from tinyinfer.kernels.expression import Expr, apply, const
from tinyinfer.kernels.transcendental_exponential import erf, exp, sigmoid, tanh
from tinyinfer.kernels.transcendental_float import FORMATS
from tinyinfer.kernels.transcendental_logarithm import log, power
from tinyinfer.kernels.transcendental_trigonometric import cos, sin

EXPANSIONS: dict[str, Callable[..., Expr]] = {
    "EXP": exp,
    "LOG": log,
    "SIN": sin,
    "COS": cos,
    "TANH": tanh,
    "ERF": erf,
    "SIGMOID": sigmoid,
    "POW": power,
}

NARROW = frozenset(("float16", "bfloat16"))


def expand(op: str, *args: Expr) -> Expr:
    """The transcendental `op` of `args` as plain elementwise operations.

    The arguments share one dtype, which the result has: float16, bfloat16, float32 or float64. Raises
    ValueError for any other dtype and KeyError for an op that is not in `ir.ops.TRANSCENDENTAL`.
    """
    rule = EXPANSIONS[op]
    dtype = args[0].dtype
    if dtype in NARROW:
        return apply("CAST", rule(*map(_widened, args)), dtype=dtype)
    if dtype not in FORMATS:
        raise ValueError(f"{op} of {dtype} has no expansion; it is defined for floating point")
    return rule(*args)


def _widened(x: Expr) -> Expr:
    """A narrow float as float32; literals stay literals, since POW looks at them."""
    return const(x.attrs, "float32") if x.op == "CONST" else apply("CAST", x, dtype="float32")


def expand_all(root: Expr) -> Expr:
    """`root` with every transcendental expanded, also in data-dependent indices; equal sub-expressions stay
    one object, depth does not matter.

    Integer POW stays as it is: it has no expansion in floating point.
    """

    def one(e: Expr) -> Expr | None:
        if e.op in TRANSCENDENTAL and (e.dtype in FORMATS or e.dtype in NARROW):
            return expand(e.op, *e.args)
        return None

    return rebuild(root, one)
