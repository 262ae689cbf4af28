"""The dialect C11: scalar code with contiguous inner loops, which compilers vectorise.

It needs a compiler whose integers are two's complement and whose floats are IEEE, and the mathematical
functions of the C library. float16 is stored as its bits and computed in float, rounded after every
operation.
"""

from __future__ import annotations

from tinyinfer.backends.clike.c11_helpers import HELPERS
from tinyinfer.backends.clike.dialect import Dialect, NumberType, conversions, decimal
from tinyinfer.ir.dtypes import is_float

TYPES = {
    "float32": NumberType("float", "float", "f32"),
    "float64": NumberType("double", "double", "f64"),
    "float16": NumberType(
        "float", "uint16_t", "f16", "ti_f32_from_f16({})", "ti_f16_from_f32({})", "ti_round_f16({})"
    ),
    "bool": NumberType("bool", "uint8_t", "bool", "{} != 0", "(uint8_t)({})"),
    **{
        f"{sign}int{bits}": NumberType(f"{sign}int{bits}_t", f"{sign}int{bits}_t", f"{sign or 'i'}{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}

_ANY = {
    "CMPLT": "{0} < {1}",
    "CMPLE": "{0} <= {1}",
    "CMPEQ": "{0} == {1}",
    "CMPNE": "{0} != {1}",
}

_FLOAT = {
    "NEG": "-{0}",
    "ABS": "fabs{s}({0})",
    "RECIP": "1.0{f} / {0}",
    "SQRT": "sqrt{s}({0})",
    "EXP": "exp{s}({0})",
    "LOG": "log{s}({0})",
    "SIN": "sin{s}({0})",
    "COS": "cos{s}({0})",
    "TANH": "tanh{s}({0})",
    "ERF": "erf{s}({0})",
    "POW": "pow{s}({0}, {1})",
    "SIGMOID": "ti_sigmoid_{T}({0})",
    "FLOOR": "floor{s}({0})",
    "CEIL": "ceil{s}({0})",
    "ROUND": "ti_round_{T}({0})",
    "TRUNC": "trunc{s}({0})",
    "ADD": "{0} + {1}",
    "SUB": "{0} - {1}",
    "MUL": "{0} * {1}",
    "DIV": "{0} / {1}",
    "MOD": "ti_modulo_{T}({0}, {1})",
    "FMOD": "fmod{s}({0}, {1})",
    "MAX": "ti_max_{T}({0}, {1})",
    "MIN": "ti_min_{T}({0}, {1})",
    "MULACC": "ti_fused_{T}({0}, {1}, {2})",
    "ACCUMULATE": "ti_multiply_add_{T}({0}, {1}, {2})",
    "WHERE": "{0} ? {1} : {2}",
}

_SINGLE = {"EXP": "ti_exp_float({0})"}
"""What is written here because compilers make vectors of it, which they do not of calls."""

_INTEGER = {
    "NEG": "({T})(0u - ({U}){0})",
    "ABS": "{0}",
    "FLOOR": "{0}",
    "CEIL": "{0}",
    "ROUND": "{0}",
    "TRUNC": "{0}",
    "SQRT": "ti_{t}_from_double(sqrt((double){0}))",
    "RECIP": "ti_{t}_from_double(1.0 / (double){0})",
    "POW": "ti_{t}_from_double(pow((double){0}, (double){1}))",
    "NOT": "({T})~{0}",
    "ADD": "({T})(({U}){0} + ({U}){1})",
    "SUB": "({T})(({U}){0} - ({U}){1})",
    "MUL": "({T})(({U}){0} * ({U}){1})",
    "MULACC": "({T})(({U}){0} * ({U}){1} + ({U}){2})",
    "ACCUMULATE": "({T})(({U}){0} * ({U}){1} + ({U}){2})",
    "AND": "({T})({0} & {1})",
    "OR": "({T})({0} | {1})",
    "XOR": "({T})({0} ^ {1})",
    "MAX": "({T})({0} > {1} ? {0} : {1})",
    "MIN": "({T})({0} < {1} ? {0} : {1})",
    "WHERE": "({T})({0} ? {1} : {2})",
    "SHL": "ti_shift_left_{t}({0}, {1})",
    "SHR": "ti_shift_right_{t}({0}, {1})",
    "IDIV": "ti_divide_{t}({0}, {1})",
    "DIV": "ti_divide_{t}({0}, {1})",
    "MOD": "ti_modulo_{t}({0}, {1})",
    "FMOD": "ti_remainder_{t}({0}, {1})",
}

_SIGNED = {"ABS": "({T})({0} < 0 ? 0u - ({U}){0} : ({U}){0})"}

_BOOL = {
    "NOT": "!{0}",
    "AND": "{0} & {1}",
    "MUL": "{0} & {1}",
    "MIN": "{0} & {1}",
    "OR": "{0} | {1}",
    "ADD": "{0} | {1}",
    "MAX": "{0} | {1}",
    "XOR": "{0} != {1}",
    "MULACC": "({0} & {1}) | {2}",
    "WHERE": "{0} ? {1} : {2}",
}

OPERATIONS = {
    (op, kind): template
    for kind, table in (
        *((kind, _ANY) for kind in ("float", "integer", "bool")),
        ("float", _FLOAT),
        ("float32", _SINGLE),
        ("float16", _SINGLE),
        ("integer", _INTEGER),
        ("signed", _SIGNED),
        ("bool", _BOOL),
    )
    for op, template in table.items()
}


def bitcast(text: str, source: str, target: str) -> str:
    """BITCAST of an operand between dtypes of one size, neither of them bool."""
    goal = TYPES[target]
    if source == "float16":
        text = f"ti_f16_from_f32({text})"
        return text if target == "uint16" else f"({goal.value}){text}"
    if target == "float16":
        return f"ti_f32_from_f16((uint16_t){text})"
    if is_float(source):
        bits = f"ti_bits_of_{TYPES[source].value}({text})"
        return bits if target.startswith("uint") else f"({goal.value}){bits}"
    if is_float(target):
        bits = text if source.startswith("uint") else f"(u{TYPES[source].value}){text}"
        return f"ti_{goal.value}_of_bits({bits})"
    return f"({goal.value}){text}"


def literal(value: float | int | bool, dtype: str) -> str:
    """A number as a C literal of this dtype."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype in ("float32", "float16"):
        text = decimal(float(value), dtype)
        return text if text.lstrip("-") in ("INFINITY", "NAN") else f"{text}f"
    if dtype == "float64":
        text = decimal(float(value), dtype)
        return f"(double){text}" if text.lstrip("-") in ("INFINITY", "NAN") else text
    number = int(value)
    if dtype in ("int32", "int64") and number == -(1 << (int(dtype[3:]) - 1)):
        return f"INT{dtype[3:]}_MIN"
    if dtype in ("int64", "uint64"):
        return f"{'U' if dtype[0] == 'u' else ''}INT64_C({number})"
    return f"{number}u" if dtype == "uint32" else str(number)


C11 = Dialect(
    name="C11",
    types=TYPES,
    operations=OPERATIONS,
    cast=conversions(TYPES, literal),
    bitcast=bitcast,
    literal=literal,
    suffixes={"float32": ("f", "f"), "float16": ("f", "f"), "float64": ("", "")},
    helpers=HELPERS,
)
