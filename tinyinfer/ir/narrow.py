"""Conversion between narrow types and plain ones, as integer arithmetic of the IR.

A narrow value is handled as its code: the bits in the storage dtype (`ir.dtypes`). Rounding is to nearest,
ties to even, also into subnormals. All steps that could meet a subnormal float32 are integer ones, because
devices may count those as zero.
"""

from __future__ import annotations

from tinyinfer.ir import build
from tinyinfer.ir.build import cast, elementwise
from tinyinfer.ir.dtypes import (
    FLOAT_FORMATS,
    NARROW_INTEGERS,
    SCALE_FORMAT,
    FloatFormat,
    code_mask,
    is_float,
    storage_dtype,
)
from tinyinfer.ir.node import Node

INFINITY = 0x7F800000
QUIET_NAN = 0x7FC00000
NEGATIVE_NAN = 0xFFC00000
MANTISSA = 23
BIAS = 127
"""Of float32."""


def _with(op: str, x: Node, value: int | float) -> Node:
    """`op` of x and a number."""
    return elementwise(op, x, build.full(value, x.shape, x.dtype))


def _where(condition: Node, value: Node | int, other: Node) -> Node:
    if not isinstance(value, Node):
        value = build.full(value, other.shape, other.dtype)
    return elementwise("WHERE", condition, value, other)


def _bitcast(x: Node, dtype: str) -> Node:
    return elementwise("BITCAST", x, dtype=dtype)


def widen(code: Node, dtype: str) -> Node:
    """The values of codes of the narrow `dtype`, exactly, in `computing_dtype(dtype)`."""
    if dtype in NARROW_INTEGERS:
        if dtype.startswith("u"):
            return code
        unused = 8 - NARROW_INTEGERS[dtype]
        return _with("SHR", _with("SHL", _bitcast(code, "int8"), unused), unused)
    wide = cast(code, "uint32")
    if dtype == "bfloat16":
        return _bitcast(_with("SHL", wide, 16), "float32")
    if dtype == SCALE_FORMAT:
        # the code 0 is the one subnormal float32 among them
        bits = _where(_with("CMPEQ", wide, 0), 1 << (MANTISSA - 1), _with("SHL", wide, MANTISSA))
        return _bitcast(_where(_with("CMPEQ", wide, 0xFF), QUIET_NAN, bits), "float32")
    return _bitcast(_widened_float(wide, FLOAT_FORMATS[dtype]), "float32")


def _widened_float(wide: Node, form: FloatFormat) -> Node:
    """The bits of float32 for codes in uint32."""
    magnitude = _with("AND", wide, form.sign - 1)
    shift = MANTISSA - form.mantissa
    normal = _with("ADD", _with("SHL", magnitude, shift), (BIAS - form.bias) << MANTISSA)
    unit = 2.0 ** (1 - form.bias - form.mantissa)
    subnormal = _bitcast(_with("MUL", cast(magnitude, "float32"), unit), "uint32")
    bits = _where(_with("CMPLT", magnitude, 1 << form.mantissa), subnormal, normal)
    if form.largest < form.sign - 1:
        mantissa = _with("AND", _with("SHL", magnitude, shift), (1 << MANTISSA) - 1)
        special = _with("OR", mantissa, INFINITY)
        bits = _where(_with("CMPLT", magnitude, form.largest + 1), bits, special)
    sign = _with("SHL", _with("AND", wide, form.sign), 32 - form.bits)
    bits = elementwise("OR", bits, sign)
    if form.unsigned_zero:
        bits = _where(_with("CMPEQ", wide, form.nan), NEGATIVE_NAN, bits)
    return bits


def narrow(x: Node, dtype: str) -> Node:
    """The codes of the narrow `dtype` nearest to x, of any plain dtype.

    Integers wrap to narrower integers; floats are truncated to them and wrap, too. What is too large for a
    narrow float gives its code `overflow`. float64 and wide integers are rounded to float32 first, as
    `ml_dtypes` does.
    """
    if dtype in NARROW_INTEGERS:
        if is_float(x.dtype):
            x = cast(x, "int32")
        return _with("AND", cast(x, "uint8"), code_mask(dtype))
    bits = _bitcast(cast(x, "float32"), "uint32")
    if dtype == "bfloat16":
        code = _with("SHR", _rounded(bits, 16), 16)
        # NaN keeps its sign
        sign = _with("AND", _with("SHR", bits, 16), 0x8000)
        nan = _with("OR", sign, FLOAT_FORMATS[dtype].nan)
        code = elementwise("WHERE", _is_nan(bits), nan, code)
    elif dtype == SCALE_FORMAT:
        # ties go up, but for what is nearest to the smallest power, which is a subnormal float32
        smallest = _with("CMPLT", bits, 1 << MANTISSA)
        half = build.full(1 << (MANTISSA - 1), bits.shape, bits.dtype)
        half = elementwise("SUB", half, cast(smallest, "uint32"))
        code = _with("SHR", elementwise("ADD", bits, half), MANTISSA)
        # zeros, negative numbers and NaN: bits - 1 is beyond those of infinity
        invalid = elementwise(
            "CMPLE", build.full(INFINITY - 1, bits.shape, bits.dtype), _with("SUB", bits, 1)
        )
        code = _where(invalid, 0xFF, code)
    else:
        code = _narrowed_float(bits, FLOAT_FORMATS[dtype])
    return cast(code, storage_dtype(dtype))


def truncate(x: Node, dtype: str) -> Node:
    """The codes of float32 values that `dtype` holds exactly, NaN among them; only for bfloat16 cheaper than
    `narrow`."""
    if dtype != "bfloat16":
        return narrow(x, dtype)
    return cast(_with("SHR", _bitcast(x, "uint32"), 16), "uint16")


def _is_nan(bits: Node) -> Node:
    magnitude = _with("AND", bits, 0x7FFFFFFF)
    return elementwise("CMPLT", build.full(INFINITY, bits.shape, bits.dtype), magnitude)


def _rounded(bits: Node, shift: int) -> Node:
    """Bits whose part above `shift` is rounded to nearest, ties to even."""
    odd = _with("AND", _with("SHR", bits, shift), 1)
    return elementwise("ADD", bits, _with("ADD", odd, (1 << (shift - 1)) - 1))


def _narrowed_float(bits: Node, form: FloatFormat) -> Node:
    """Codes in uint32 for the bits of float32.

    With e the exponent in the narrow format, the significand (its leading one included) is shifted right
    until its last bit has the weight of the narrow one: by a constant, and where e < 1 by 1 - e more, for
    a subnormal. The leading one then adds 1 to the exponent's field, and a carry of the rounding does, too.
    """
    magnitude = _with("AND", bits, 0x7FFFFFFF)
    exponent = _bitcast(_with("SHR", magnitude, MANTISSA), "int32")
    exponent = _with("ADD", exponent, form.bias - BIAS)
    significand = _with("OR", _with("AND", magnitude, (1 << MANTISSA) - 1), 1 << MANTISSA)
    # shifts by two more than the mantissa already give zero
    below = elementwise("SUB", build.full(1, bits.shape, "int32"), exponent)
    extra = _with("MIN", _with("MAX", below, 0), form.mantissa + 2)
    shift = _with("ADD", _bitcast(extra, "uint32"), MANTISSA - form.mantissa)
    one = build.full(1, bits.shape, "uint32")
    odd = elementwise("AND", elementwise("SHR", significand, shift), one)
    half = elementwise("SUB", elementwise("SHL", one, elementwise("SUB", shift, one)), one)
    rounded = elementwise("ADD", elementwise("ADD", significand, half), odd)
    field = _with("SUB", _with("MAX", exponent, 1), 1)
    code = elementwise(
        "ADD",
        elementwise("SHR", rounded, shift),
        _with("SHL", _bitcast(field, "uint32"), form.mantissa),
    )
    code = _where(_with("CMPLE", code, form.largest), code, build.full(form.overflow, bits.shape, "uint32"))
    sign = _with("AND", _with("SHR", bits, 32 - form.bits), form.sign)
    nan = _is_nan(bits)
    if form.unsigned_zero:
        signed = elementwise("OR", code, sign)
        # zero has no sign, and no code beyond the largest has one
        plain = elementwise("OR", _with("CMPEQ", code, 0), _with("CMPEQ", code, form.nan))
        return _where(nan, form.nan, elementwise("WHERE", plain, code, signed))
    # where NaN has a code of its own the sign joins it; where it has none, it turns into a zero
    return elementwise("XOR", _where(nan, form.nan, code), sign)
