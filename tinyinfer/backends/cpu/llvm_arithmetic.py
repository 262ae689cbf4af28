"""The elementwise ops of the IR as LLVM instructions, for scalars and vectors alike.

One function per op shape; the tables at the end say which instruction serves which op.
"""

from __future__ import annotations

import math

from tinyinfer.backends.cpu.llvm_writer import LLVM_TYPES, Value, Writer, is_float, is_signed, literal
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.kernels.expression import LOOSE, Expr

FLOAT_BINARY = {"ADD": "fadd", "SUB": "fsub", "MUL": "fmul", "DIV": "fdiv"}
INTEGER_BINARY = {"ADD": "add", "SUB": "sub", "MUL": "mul", "AND": "and", "OR": "or", "XOR": "xor"}
FLOAT_COMPARE = {"CMPLT": "olt", "CMPLE": "ole", "CMPEQ": "oeq", "CMPNE": "une"}
INTEGER_COMPARE = {
    "CMPLT": ("slt", "ult"),
    "CMPLE": ("sle", "ule"),
    "CMPEQ": ("eq", "eq"),
    "CMPNE": ("ne", "ne"),
}
NARROW = ("float16", "bfloat16")
FLOAT_UNARY = {
    "SQRT": "sqrt",
    "FLOOR": "floor",
    "CEIL": "ceil",
    "ROUND": "roundeven",
    "TRUNC": "trunc",
    "ABS": "fabs",
}


def suffix(writer: Writer, dtype: str, vector: bool) -> str:
    """The type suffix of an overloaded intrinsic."""
    scalar = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}.get(
        LLVM_TYPES[dtype], LLVM_TYPES[dtype]
    )
    return f"v{writer.lanes}{scalar}" if vector else scalar


def arithmetic(writer: Writer, e: Expr, args: list[Value]) -> Value:
    """Write the elementwise expression `e` of finished arguments. Scalars stay scalar if all arguments
    are."""
    vector = any(a.vector for a in args)
    if vector:
        args = [writer.splat(a) for a in args]
    result = _emit(writer, e, args, vector)
    return Value(result, e.dtype, vector)


def _emit(w: Writer, e: Expr, args: list[Value], vector: bool) -> str:
    op, dtype = e.op, args[0].dtype
    kind = w.type(dtype, vector)
    typed = [w.typed(a) for a in args]
    if op == "CAST":
        return _cast(w, args[0], e.dtype)
    if op == "BITCAST":
        if "bool" in (dtype, e.dtype):
            return _cast(w, args[0], e.dtype)
        return w.emit(f"bitcast {typed[0]} to {w.type(e.dtype, vector)}")
    if op == "WHERE":
        return w.emit(f"select {typed[0]}, {typed[1]}, {typed[2]}")
    if op in FLOAT_COMPARE:
        if is_float(dtype):
            return w.emit(f"fcmp {FLOAT_COMPARE[op]} {typed[0]}, {args[1].text}")
        signed, unsigned = INTEGER_COMPARE[op]
        return w.emit(f"icmp {signed if is_signed(dtype) else unsigned} {typed[0]}, {args[1].text}")
    if is_float(dtype):
        return _float(w, op, e, args, typed, kind, vector)
    return _integer(w, op, args, typed, kind, vector)


def _float(w: Writer, op: str, e: Expr, args: list[Value], typed: list[str], kind: str, vector: bool) -> str:
    dtype = args[0].dtype
    tail = suffix(w, dtype, vector)
    if op in FLOAT_BINARY:
        return w.emit(f"{FLOAT_BINARY[op]} {typed[0]}, {args[1].text}")
    if op in FLOAT_UNARY:
        return w.call(f"llvm.{FLOAT_UNARY[op]}.{tail}", kind, typed[0])
    if op == "NEG":
        return w.emit(f"fneg {typed[0]}")
    if op == "RECIP":
        one = w.splat_literal(1.0, dtype) if vector else literal(1.0, dtype)
        return w.emit(f"fdiv {kind} {one}, {args[0].text}")
    if op == "MULACC":
        if dtype in NARROW:
            return _fused_in_single(w, args)
        return w.call(f"llvm.{'fmuladd' if e.attrs == LOOSE else 'fma'}.{tail}", kind, *typed)
    if op in ("MAX", "MIN"):
        return _extreme(w, op, e, args, kind, tail)
    if op == "FMOD":
        return w.emit(f"frem {typed[0]}, {args[1].text}")
    if op == "MOD":
        rest = w.emit(f"frem {typed[0]}, {args[1].text}")
        zero = f"{kind} zeroinitializer" if vector else f"{kind} {literal(0.0, dtype)}"
        zero_text = zero.rsplit(" ", 1)[1]
        boolean = w.type("bool", vector)
        below, above = (w.emit(f"fcmp olt {kind} {x}, {zero_text}") for x in (rest, args[1].text))
        nonzero = w.emit(f"fcmp one {kind} {rest}, {zero_text}")
        differs = w.emit(f"and {boolean} {nonzero}, {w.emit(f'xor {boolean} {below}, {above}')}")
        moved = w.emit(f"fadd {kind} {rest}, {args[1].text}")
        return w.emit(f"select {boolean} {differs}, {kind} {moved}, {kind} {rest}")
    raise NotImplementedError(f"{op} on {dtype} has no LLVM form")


def _fused_in_single(w: Writer, args: list[Value]) -> str:
    """a · b + c of narrow floats in single precision: LLVM would call a library's conversion from double."""
    vector = args[0].vector
    wide = [w.typed(Value(_cast(w, a, "float32"), "float32", vector)) for a in args]
    # the product of two narrow numbers is exact in single precision, so nothing has to be fused
    name = f"llvm.fmuladd.{suffix(w, 'float32', vector)}"
    result = w.call(name, w.type("float32", vector), *wide)
    return _cast(w, Value(result, "float32", vector), args[0].dtype)


def _extreme(w: Writer, op: str, e: Expr, args: list[Value], kind: str, tail: str) -> str:
    """MAX or MIN that keep NaN: one compare-and-select if one side is a number, as x86's max then does it
    alone."""
    for constant, other in ((0, 1), (1, 0)):
        source = e.args[constant]
        if source.op == "CONST" and not math.isnan(source.attrs):
            compare = "ogt" if op == "MAX" else "olt"
            chosen = w.emit(f"fcmp {compare} {kind} {args[constant].text}, {args[other].text}")
            boolean = w.type("bool", args[0].vector)
            return w.emit(
                f"select {boolean} {chosen}, {kind} {args[constant].text}, {kind} {args[other].text}"
            )
    name = "llvm.maximum" if op == "MAX" else "llvm.minimum"
    return w.call(f"{name}.{tail}", kind, f"{kind} {args[0].text}", f"{kind} {args[1].text}")


def _integer(w: Writer, op: str, args: list[Value], typed: list[str], kind: str, vector: bool) -> str:
    dtype = args[0].dtype
    signed = is_signed(dtype)

    def number(value: int) -> str:
        return w.splat_literal(value, dtype) if vector else literal(value, dtype)

    if dtype == "bool" and op in ("ADD", "MULACC"):
        terms = args
        if op == "MULACC":
            both = w.emit(f"and {typed[0]}, {args[1].text}")
            terms = [Value(both, dtype, args[0].vector), args[2]]
        return w.emit(f"or {w.typed(terms[0])}, {terms[1].text}")
    if op in INTEGER_BINARY:
        return w.emit(f"{INTEGER_BINARY[op]} {typed[0]}, {args[1].text}")
    if op == "NEG":
        return w.emit(f"sub {kind} {number(0)}, {args[0].text}")
    if op == "NOT":
        ones = number(1 if dtype == "bool" else -1)
        return w.emit(f"xor {typed[0]}, {ones}")
    if op in ("SQRT", "RECIP", "FLOOR", "CEIL", "ROUND", "TRUNC"):
        return args[0].text if op not in ("SQRT", "RECIP") else _through_double(w, op, args[0])
    tail = suffix(w, dtype, vector)
    if op == "ABS":
        return w.call(f"llvm.abs.{tail}", kind, typed[0], "i1 false") if signed else args[0].text
    if op in ("MAX", "MIN"):
        if dtype == "bool":
            return w.emit(f"{'or' if op == 'MAX' else 'and'} {typed[0]}, {args[1].text}")
        name = f"llvm.{'s' if signed else 'u'}{op.lower()}.{tail}"
        return w.call(name, kind, *typed)
    if op == "MULACC":
        product = w.emit(f"mul {typed[0]}, {args[1].text}")
        return w.emit(f"add {kind} {product}, {args[2].text}")
    if op in ("SHL", "SHR"):
        return _shift(w, op, args, kind, number, vector)
    if op in ("IDIV", "DIV", "MOD", "FMOD"):
        return _divide(w, op, args, kind, signed, number, w.type("bool", vector))
    raise NotImplementedError(f"{op} on {dtype} has no LLVM form")


def _shift(w: Writer, op: str, args: list[Value], kind: str, number, vector: bool) -> str:
    """A shift that moves every bit out where its count is not less than the width, which LLVM leaves open."""
    dtype = args[0].dtype
    amount = args[1].text if args[1].dtype == dtype else _cast(w, args[1], dtype)
    width = 8 * numpy_dtype(dtype).itemsize
    if op == "SHR" and is_signed(dtype):
        least = w.call(
            f"llvm.umin.{suffix(w, dtype, vector)}", kind, f"{kind} {amount}", f"{kind} {number(width - 1)}"
        )
        return w.emit(f"ashr {kind} {args[0].text}, {least}")
    inside = w.emit(f"icmp ult {kind} {amount}, {number(width)}")
    shifted = w.emit(f"{'shl' if op == 'SHL' else 'lshr'} {kind} {args[0].text}, {amount}")
    return w.emit(f"select {w.type('bool', vector)} {inside}, {kind} {shifted}, {kind} {number(0)}")


def _divide(w: Writer, op: str, args: list[Value], kind: str, signed: bool, number, boolean: str) -> str:
    """Integer division that never traps: by zero it gives 0 (remainder: 0), by -1 it negates."""
    a, b = args[0].text, args[1].text
    zero = w.emit(f"icmp eq {kind} {b}, {number(0)}")
    bad = zero
    if signed:
        minus = w.emit(f"icmp eq {kind} {b}, {number(-1)}")
        bad = w.emit(f"or {boolean} {zero}, {minus}")
    safe = w.emit(f"select {boolean} {bad}, {kind} {number(1)}, {kind} {b}")
    if op in ("IDIV", "DIV"):
        quotient = w.emit(f"{'sdiv' if signed else 'udiv'} {kind} {a}, {safe}")
        if signed:
            negated = w.emit(f"sub {kind} {number(0)}, {a}")
            quotient = w.emit(f"select {boolean} {minus}, {kind} {negated}, {kind} {quotient}")
        return w.emit(f"select {boolean} {zero}, {kind} {number(0)}, {kind} {quotient}")
    rest = w.emit(f"{'srem' if signed else 'urem'} {kind} {a}, {safe}")
    if op == "FMOD" or not signed:
        return rest
    nonzero = w.emit(f"icmp ne {kind} {rest}, {number(0)}")
    signs = w.emit(f"icmp slt {kind} {w.emit(f'xor {kind} {rest}, {safe}')}, {number(0)}")
    both = w.emit(f"and {boolean} {nonzero}, {signs}")
    return w.emit(f"select {boolean} {both}, {kind} {w.emit(f'add {kind} {rest}, {safe}')}, {kind} {rest}")


def _through_double(w: Writer, op: str, value: Value) -> str:
    wide = Value(_cast(w, value, "float64"), "float64", value.vector)
    kind = w.type("float64", value.vector)
    if op == "SQRT":
        made = w.call(f"llvm.sqrt.{suffix(w, 'float64', value.vector)}", kind, w.typed(wide))
    else:
        one = w.splat_literal(1.0, "float64") if value.vector else literal(1.0, "float64")
        made = w.emit(f"fdiv {kind} {one}, {wide.text}")
    return _cast(w, Value(made, "float64", value.vector), value.dtype)


def _cast(w: Writer, value: Value, target: str) -> str:
    source = value.dtype
    if source == target:
        return value.text
    kind, goal = w.type(source, value.vector), w.type(target, value.vector)
    if target == "bool":
        zero = "zeroinitializer" if value.vector else literal(0, source)
        return w.emit(f"{'fcmp une' if is_float(source) else 'icmp ne'} {kind} {value.text}, {zero}")
    if is_float(source) and is_float(target):
        bits = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
        # from double straight to half takes a library call on most CPUs
        if bits[source] == bits[target] or bits[source] - bits[target] == 48:
            middle = Value(_cast(w, value, "float32"), "float32", value.vector)
            return _cast(w, middle, target)
        return w.emit(
            f"{'fpext' if bits[target] > bits[source] else 'fptrunc'} {kind} {value.text} to {goal}"
        )
    if source in NARROW:
        return _cast(w, Value(_cast(w, value, "float32"), "float32", value.vector), target)
    if is_float(source):
        name = "llvm.fptosi.sat" if is_signed(target) else "llvm.fptoui.sat"
        tails = f"{suffix(w, target, value.vector)}.{suffix(w, source, value.vector)}"
        return w.call(f"{name}.{tails}", goal, f"{kind} {value.text}")
    if is_float(target):
        signed = is_signed(source)
        return w.emit(f"{'sitofp' if signed else 'uitofp'} {kind} {value.text} to {goal}")
    wide = {
        "bool": 1,
        "int8": 8,
        "uint8": 8,
        "int16": 16,
        "uint16": 16,
        "int32": 32,
        "uint32": 32,
        "int64": 64,
        "uint64": 64,
    }
    if wide[source] == wide[target]:
        return value.text
    if wide[source] > wide[target]:
        return w.emit(f"trunc {kind} {value.text} to {goal}")
    return w.emit(f"{'sext' if is_signed(source) else 'zext'} {kind} {value.text} to {goal}")
