"""Canonical forms and identities of elementwise and reduce ops, one rule a function.

Constants stand last in commutative ops. Identities hold for every input, NaN and infinities included, except
where a rule says otherwise.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import is_float, numpy_dtype
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.constants import combine, is_constant, is_uniform, uniform_value
from tinyinfer.ir.passes.rewrite import Users, joined, rewrite


def simplify(graph: Graph) -> Graph:
    """The graph in canonical form."""
    return rewrite(graph, RULES)


# ---- canonical operands


def constant_last(x: Node, users: Users) -> Node | None:
    """c ∘ y = y ∘ c for a commutative op."""
    if len(x.inputs) != 2 or not is_constant(x.inputs[0]) or is_constant(x.inputs[1]):
        return None
    return build.elementwise(x.op, x.inputs[1], x.inputs[0])


def scalar_constant(x: Node, users: Users) -> Node | None:
    """A view of a one-element literal is an expanded scalar."""
    source = x.inputs[0]
    if len(x.inputs) != 1 or source.op != "CONST" or source.size != 1 or x.attrs.guards or not source.shape:
        return None
    return build.expand(build.constant(source.attrs.array.reshape(())), x.shape)


# ---- identities


def add_zero(x: Node, users: Users) -> Node | None:
    """y + 0 = y (but -0.0 stays -0.0)."""
    return x.inputs[0] if x.dtype != "bool" and is_uniform(x.inputs[1], 0) else None


def subtract_zero(x: Node, users: Users) -> Node | None:
    """y - 0 = y."""
    return x.inputs[0] if is_uniform(x.inputs[1], 0) else None


def multiply_by_one(x: Node, users: Users) -> Node | None:
    """y · 1 = y, y / 1 = y."""
    return x.inputs[0] if is_uniform(x.inputs[1], 1) else None


def multiply_by_minus_one(x: Node, users: Users) -> Node | None:
    """y · -1 = -y."""
    if numpy_dtype(x.dtype).kind in "ub" or not is_uniform(x.inputs[1], -1):
        return None
    return build.elementwise("NEG", x.inputs[0])


def integer_multiply_by_zero(x: Node, users: Users) -> Node | None:
    """y · 0 = 0 for integers."""
    if is_float(x.dtype) or not is_uniform(x.inputs[1], 0):
        return None
    return build.full(0, x.shape, x.dtype)


def add_negative(x: Node, users: Users) -> Node | None:
    """y + (-z) = y - z."""
    for y, z in (x.inputs, x.inputs[::-1]):
        if z.op == "NEG":
            return build.elementwise("SUB", y, z.inputs[0], origin=joined(z))
    return None


def subtract_negative(x: Node, users: Users) -> Node | None:
    """y - (-z) = y + z."""
    y, z = x.inputs
    return build.elementwise("ADD", y, z.inputs[0], origin=joined(z)) if z.op == "NEG" else None


def undo_twice(x: Node, users: Users) -> Node | None:
    """-(-y) = y, not not y = y."""
    inner = x.inputs[0]
    return inner.inputs[0] if inner.op == x.op else None


def absolute_twice(x: Node, users: Users) -> Node | None:
    """||y|| = |-y| = |y|."""
    inner = x.inputs[0]
    if inner.op == "ABS":
        return inner
    return build.elementwise("ABS", inner.inputs[0], origin=joined(inner)) if inner.op == "NEG" else None


def round_twice(x: Node, users: Users) -> Node | None:
    """FLOOR, CEIL, ROUND and TRUNC leave integers as they are."""
    return x.inputs[0] if x.inputs[0].op in ("FLOOR", "CEIL", "ROUND", "TRUNC") else None


def same_operands(x: Node, users: Users) -> Node | None:
    """max(y, y) = min(y, y) = y and y = y or y = y."""
    return x.inputs[0] if len(x.inputs) == 2 and x.inputs[0] is x.inputs[1] else None


# ---- selection and clamps


def constant_condition(x: Node, users: Users) -> Node | None:
    """WHERE of a known condition is the branch; of two equal branches, either."""
    condition, yes, no = x.inputs
    if yes is no:
        return yes
    known = uniform_value(condition)
    return None if known is None else yes if known else no


def negated_condition(x: Node, users: Users) -> Node | None:
    """WHERE(not c, a, b) = WHERE(c, b, a)."""
    condition, yes, no = x.inputs
    if condition.op != "NOT":
        return None
    return build.elementwise("WHERE", condition.inputs[0], no, yes, origin=joined(condition))


def join_limits(x: Node, users: Users) -> Node | None:
    """max(max(y, c), d) = max(y, max(c, d)), and the same for min."""
    if len(x.inputs) != 2 or not is_constant(x.inputs[1]):
        return None
    inner, outer_limit = x.inputs
    if inner.op != x.op or len(inner.inputs) != 2 or not is_constant(inner.inputs[1]):
        return None
    limit = combine(x.op, inner.inputs[1], outer_limit)
    return build.elementwise(x.op, inner.inputs[0], limit, origin=joined(inner))


def clamp_order(x: Node, users: Users) -> Node | None:
    """max(min(y, high), low) = min(max(y, low), high) if low <= high: clamps have the MAX inside."""
    if len(x.inputs) != 2 or not is_constant(x.inputs[1]):
        return None
    inner, low = x.inputs
    if inner.op != "MIN" or len(inner.inputs) != 2 or not is_constant(inner.inputs[1]):
        return None
    if not users.single(inner) or uniform_value(combine("CMPLE", low, inner.inputs[1])) is not True:
        return None
    raised = build.elementwise("MAX", inner.inputs[0], low, origin=joined(inner))
    raised = join_limits(raised, users) or raised
    return build.elementwise("MIN", raised, inner.inputs[1], origin=joined(inner))


# ---- conversions


def cast_twice(x: Node, users: Users) -> Node | None:
    """CAST of CAST is one CAST where the inner one keeps every value and the outer one cannot tell."""
    inner = x.inputs[0]
    if inner.op != "CAST":
        return None
    first, middle, last = inner.inputs[0].dtype, inner.dtype, x.dtype
    if not keeps_values(first, middle):
        return None
    # a float saturates where an integer wraps
    if is_float(middle) and not is_float(first) and not (
            is_float(last) or last == "bool" or keeps_values(first, last)):
        return None
    return build.cast(inner.inputs[0], last)


def cast_bitcast_twice(x: Node, users: Users) -> Node | None:
    """BITCAST of BITCAST is one BITCAST."""
    inner = x.inputs[0]
    if inner.op != "BITCAST":
        return None
    return build.elementwise("BITCAST", inner.inputs[0], dtype=x.dtype)


_FLOAT_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
_FLOAT_WIDER = {("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32"),
                ("bfloat16", "float64"), ("float32", "float64")}


def keeps_values(first: str, second: str) -> bool:
    """Whether dtype `second` holds every value of dtype `first`, but that a bool keeps only bools."""
    if first == second or first == "bool":
        return True
    if second == "bool":
        return False
    if is_float(first):
        return (first, second) in _FLOAT_WIDER
    limits = np.iinfo(first)
    if is_float(second):
        return limits.bits - (limits.min < 0) <= _FLOAT_DIGITS.get(second, 0)
    return np.iinfo(second).min <= limits.min and limits.max <= np.iinfo(second).max


# ---- functions


def reciprocal(x: Node, users: Users) -> Node | None:
    """1 / y = RECIP(y)."""
    if not is_float(x.dtype) or not is_uniform(x.inputs[0], 1):
        return None
    return build.elementwise("RECIP", x.inputs[1])


def power(x: Node, users: Users) -> Node | None:
    """Powers of -1, 0.5, 1, 2 and 3 by multiplications and roots.

    y**0.5 = SQRT(y) but for -0.0 (gives -0.0, not 0.0) and -inf (NaN, not inf).
    """
    y, exponent = x.inputs
    value = uniform_value(exponent)
    if value == 1:
        return y
    if value == 2:
        return build.elementwise("MUL", y, y)
    if value == 3:
        return build.elementwise("MUL", build.elementwise("MUL", y, y), y)
    if is_float(x.dtype) and value == 0.5:
        return build.elementwise("SQRT", y)
    if is_float(x.dtype) and value == -1:
        return build.elementwise("RECIP", y)
    return None


def sigmoid(x: Node, users: Users) -> Node | None:
    """1 / (1 + exp(-y)) = SIGMOID(y)."""
    total = x.inputs[0]
    if total.op != "ADD" or total.inputs[0].op != "EXP" or not is_uniform(total.inputs[1], 1):
        return None
    exponential = total.inputs[0]
    inner = exponential.inputs[0]
    if inner.op == "NEG":
        return build.elementwise("SIGMOID", inner.inputs[0], origin=joined(total, exponential, inner))
    return None


# ---- reductions


def reduce_nothing(x: Node, users: Users) -> Node | None:
    """Reducing axes of size 1 is a reshape."""
    if not x.is_reduce or any(x.inputs[0].shape[a] != 1 for a in x.attrs):
        return None
    return build.reshape(x.inputs[0], x.shape)


def join_reductions(x: Node, users: Users) -> Node | None:
    """A reduction of the same reduction is one over the axes of both."""
    inner = x.inputs[0]
    if not x.is_reduce or inner.op != x.op or not inner.is_reduce or not users.single(inner):
        return None
    kept = [i for i in range(len(inner.inputs[0].shape)) if i not in inner.attrs]
    axes = [*inner.attrs, *(kept[a] for a in x.attrs)]
    return build.reduce(x.op, inner.inputs[0], axes, origin=joined(inner))


def join_concatenations(x: Node, users: Users) -> Node | None:
    """A CONCAT inside a CONCAT of the same axis places its inputs itself."""
    parts: list[Node] = []
    for part in x.inputs:
        nested = part.op == "CONCAT" and part.attrs == x.attrs and users.single(part)
        parts += part.inputs if nested else (part,)
    if len(parts) == len(x.inputs):
        return None
    inside = [part for part in x.inputs if part.op == "CONCAT"]
    return build.concat(parts, x.attrs, origin=joined(*inside))


RULES = {
    "ADD": (constant_last, add_zero, add_negative),
    "SUB": (subtract_zero, subtract_negative),
    "MUL": (constant_last, multiply_by_one, multiply_by_minus_one, integer_multiply_by_zero),
    "DIV": (multiply_by_one, reciprocal),
    "IDIV": (multiply_by_one,),
    "NEG": (undo_twice,),
    "NOT": (undo_twice,),
    "ABS": (absolute_twice,),
    "FLOOR": (round_twice,),
    "CEIL": (round_twice,),
    "ROUND": (round_twice,),
    "TRUNC": (round_twice,),
    "MAX": (constant_last, same_operands, join_limits, clamp_order, reduce_nothing, join_reductions),
    "MIN": (constant_last, same_operands, join_limits, reduce_nothing, join_reductions),
    "AND": (constant_last, same_operands),
    "OR": (constant_last, same_operands),
    "XOR": (constant_last,),
    "CMPEQ": (constant_last,),
    "CMPNE": (constant_last,),
    "WHERE": (constant_condition, negated_condition),
    "CAST": (cast_twice,),
    "BITCAST": (cast_bitcast_twice,),
    "POW": (power,),
    "RECIP": (sigmoid,),
    "SUM": (reduce_nothing, join_reductions),
    "PROD": (reduce_nothing, join_reductions),
    "VIEW": (scalar_constant,),
    "CONCAT": (join_concatenations,),
}
