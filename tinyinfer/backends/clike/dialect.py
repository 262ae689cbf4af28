"""What a C-like language writes in its own way, as data: types, literals, the spelling of every op, heads of
kernels.

A dialect is a table; the printers of this folder read it and never ask which language it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir.dtypes import is_float, numpy_dtype


@dataclass(frozen=True)
class NumberType:
    """How one dtype is written. `value` is the type that arithmetic is done in, `memory` that of an element.

    `load` and `store` are templates of the conversions between them, `round` one that a result of arithmetic
    is rounded by ("{}": it has the right precision already). `tag` names the dtype in names of helper
    functions.
    """

    value: str
    memory: str
    tag: str
    load: str = "{}"
    store: str = "{}"
    round: str = "{}"
    converted: bool = False
    """Whether functions named after `memory` read and write elements: `vload_half` and `vstore_half_rte`."""


@dataclass(frozen=True)
class Dialect:
    """One language.

    `operations` gives a template by op and kind of dtype: an exact dtype, "float", "signed", "unsigned" or
    "bool". In templates `{0}` … are finished operands, `{t}` the tag, `{T}` the type of values, `{U}` the
    unsigned type that integer arithmetic wraps around in, `{s}` the suffix of a mathematical function and
    `{f}` that of a literal. A template whose result needs no brackets begins and ends like a call.

    `casts` gives templates by (kind of source, kind of target); `literal` writes a number. `helpers` are
    definitions by name that kernels refer to, in an order in which each needs only earlier ones.
    """

    name: str
    types: Mapping[str, NumberType]
    operations: Mapping[tuple[str, str], str]
    cast: Callable[[str, str, str], str]
    bitcast: Callable[[str, str, str], str]
    literal: Callable[[float | int | bool, str], str]
    suffixes: Mapping[str, tuple[str, str]]
    """By float dtype: the suffix of mathematical functions and that of literals."""
    index: str = "int32_t"
    wide_index: str = "int64_t"
    size: str = "size_t"
    unsigned_wide: str = "uint64_t"
    trips: str = "{}"
    """The end of a loop whose body shall not be written out, however few trips it has."""
    image: str = ""
    """A parameter that is an image, `access`_only."""
    head: str = "static void {name}({parameters})"
    written: str = "{type} *restrict {name}"
    read: str = "const {type} *restrict {name}"
    helpers: Mapping[str, str] = field(default_factory=dict)
    helper_prefix: str = "ti_"

    def operation(self, op: str, dtype: str) -> str:
        """The template of an elementwise op of operands of this dtype. NotImplementedError where there is
        none."""
        for kind in (dtype, *kinds(dtype)):
            found = self.operations.get((op, kind))
            if found is not None:
                return found
        raise NotImplementedError(f"{op} of {dtype} cannot be written in {self.name}")

    def unsigned(self, dtype: str) -> str:
        """The unsigned type that arithmetic on an integer dtype wraps around in: no narrower than an int."""
        return self.types["uint64" if numpy_dtype(dtype).itemsize == 8 else "uint32"].value


def kinds(dtype: str) -> tuple[str, ...]:
    """The kinds that a dtype is looked up under, the most specific first."""
    if dtype == "bool":
        return ("bool",)
    if is_float(dtype):
        return ("float",)
    return ("signed", "integer") if dtype.startswith("int") else ("unsigned", "integer")


def decimal(value: float, dtype: str) -> str:
    """The shortest decimal number that reads back as this float of `dtype`; infinities and NaN as C names
    them."""
    with np.errstate(over="ignore"):
        rounded = numpy_dtype("float32" if dtype == "float16" else dtype).type(numpy_dtype(dtype).type(value))
    if math.isnan(rounded):
        return "NAN"
    if math.isinf(rounded):
        return "INFINITY" if rounded > 0 else "-INFINITY"
    if rounded == int(rounded) and abs(rounded) < 1e6:
        return f"{'-' if math.copysign(1, rounded) < 0 else ''}{abs(int(rounded))}.0"
    text = np.format_float_scientific(rounded, unique=True, trim="0", exp_digits=1)
    if 1e-4 <= abs(rounded) < 1e6:
        text = np.format_float_positional(rounded, unique=True, trim="0")
    return text.replace("e+", "e")


def conversions(
    types: Mapping[str, NumberType], literal: Callable[[float | int | bool, str], str]
) -> Callable[[str, str, str], str]:
    """`Dialect.cast` of languages with C's casts: floats saturate in helpers, integers wrap around, anything
    to bool is `!= 0`."""

    def cast(text: str, source: str, target: str) -> str:
        goal = types[target]
        if target == "bool":
            return f"{text} != {literal(0, source)}"
        if is_float(target):
            if source == "float16" and target == "float32":
                return text
            return goal.round.format(f"({goal.value}){text}")
        if is_float(source):
            return f"ti_{goal.tag}_from_{types[source].value}({text})"
        return f"({goal.value}){text}"

    return cast
