"""Elementwise ops as text: templates of the dialect filled with operands."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.ir.dtypes import is_float
from tinyinfer.kernels.expression import Expr, apply, expression

JOIN = {"SUM": "ADD", "PROD": "MUL", "MAX": "MAX", "MIN": "MIN"}
"""The elementwise op that joins two values of a reduction or an update."""

EXACT = frozenset(("NEG", "ABS", "FLOOR", "CEIL", "ROUND", "TRUNC", "MAX", "MIN", "WHERE"))
"""Ops whose float results are operands, or integers no larger than them: they need no rounding."""

WITH_ITSELF = {"CMPLT": False, "CMPLE": True, "CMPEQ": True, "CMPNE": False}
"""What a number that is no NaN gives compared with itself; compilers warn of such text."""

_ATOM = re.compile(r"\w[\w.]*(\[[^\[\]]*\]|\([^()]*\))?")
_CALL = re.compile(r"\w+\(")


@dataclass(frozen=True)
class Value:
    """An expression of the language and the dtype of its value."""

    text: str
    dtype: str

    @property
    def operand(self) -> str:
        """The text as an operand of anything."""
        return self.text if is_atom(self.text) else f"({self.text})"


def is_atom(text: str) -> bool:
    """Whether a text is a name, a literal, an element or a call, which bind closer than every operator."""
    if _ATOM.fullmatch(text):
        return True
    if not _CALL.match(text) and not re.match(r"\w+\[", text):
        return False
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if not depth and character in ")]":
            return position == len(text) - 1
    return False


def arithmetic(dialect: Dialect, e: Expr, args: list[Value]) -> Value:
    """The elementwise expression `e` of finished arguments."""
    if e.op == "CAST":
        return cast(dialect, args[0], e.dtype)
    if e.op == "BITCAST":
        if "bool" in (args[0].dtype, e.dtype):
            return cast(dialect, args[0], e.dtype)
        return Value(dialect.bitcast(args[0].operand, args[0].dtype, e.dtype), e.dtype)
    if e.op in ("SHL", "SHR"):
        args = [args[0], cast(dialect, args[1], args[0].dtype)]
    dtype = args[-1].dtype
    if e.op in WITH_ITSELF and not is_float(dtype) and args[0] == args[1]:
        return Value(dialect.literal(WITH_ITSELF[e.op], "bool"), "bool")
    if e.op in ("MAX", "MIN") and is_float(dtype):
        chosen = _extreme_of_constant(e, args)
        if chosen is not None:
            return chosen
    text = _filled(dialect, dialect.operation(e.op, dtype), args, dtype)
    if is_float(e.dtype) and e.op not in EXACT:
        text = dialect.types[e.dtype].round.format(text)
    return Value(text, e.dtype)


def repeats(dialect: Dialect, e: Expr, number: int) -> bool:
    """Whether the text of `e` has operand `number` more than once."""
    if e.op in ("CAST", "BITCAST"):
        return False
    dtype = e.args[-1].dtype
    if e.op in ("MAX", "MIN") and is_float(dtype):
        return any(a.op == "CONST" for a in e.args)
    return (
        dialect.operation(e.op, e.args[0].dtype if e.op in ("SHL", "SHR") else dtype).count(f"{{{number}}}")
        > 1
    )


def _filled(dialect: Dialect, template: str, args: list[Value], dtype: str) -> str:
    kind = dialect.types[dtype]
    function, literal = dialect.suffixes.get(dtype, ("", ""))
    # operands that stand alone between brackets or commas need no brackets of their own
    operands = [
        a.text
        if re.search(rf"[(,] ?\{{{i}\}}[,)]", template) and template.count(f"{{{i}}}") == 1
        else a.operand
        for i, a in enumerate(args)
    ]
    unsigned = dialect.unsigned(dtype) if not is_float(dtype) and dtype != "bool" else ""
    return template.format(*operands, t=kind.tag, T=kind.value, U=unsigned, s=function, f=literal)


def _extreme_of_constant(e: Expr, args: list[Value]) -> Value | None:
    """MAX or MIN that keep NaN, where one side is a number: one comparison that NaN fails."""
    for constant, other in ((0, 1), (1, 0)):
        source = e.args[constant]
        if source.op == "CONST" and not math.isnan(source.attrs):
            sign = ">" if e.op == "MAX" else "<"
            a, b = args[constant].operand, args[other].operand
            return Value(f"{a} {sign} {b} ? {a} : {b}", e.dtype)
    return None


def cast(dialect: Dialect, value: Value, target: str) -> Value:
    """The value as another dtype, as the IR's CAST converts it."""
    if value.dtype == target:
        return value
    return Value(dialect.cast(value.operand, value.dtype, target), target)


def join(dialect: Dialect, op: str, a: Value, b: Value) -> Value:
    """Two values of a reduction, or an element and its update, joined by a reduce op."""
    left, right = (expression("SLOT", (), x.dtype, name) for x, name in ((a, "left"), (b, "right")))
    return arithmetic(dialect, apply(JOIN[op], left, right), [a, b])


def accumulate(dialect: Dialect, a: Value, b: Value, total: Value) -> Value:
    """total + a · b, one step of a long sum: rounded once or twice, whichever is faster."""
    text = _filled(dialect, dialect.operation("ACCUMULATE", total.dtype), [a, b, total], total.dtype)
    return Value(dialect.types[total.dtype].round.format(text), total.dtype)
