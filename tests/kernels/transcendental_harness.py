"""Two evaluators of plain elementwise expressions for tests: numpy, and LLVM IR compiled for this machine."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.kernels.expression import Expr, expression, walk

LLVM_TYPE = {
    "float16": "half",
    "bfloat16": "bfloat",
    "float32": "float",
    "float64": "double",
    "int32": "i32",
    "int64": "i64",
    "bool": "i1",
}


def argument(name: str, dtype: str) -> Expr:
    """An unknown of an expression."""
    return expression("SLOT", (), dtype, name)


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a · b + c rounded once (for float64 but for ties that a bit past the pair of the sum would break).

    float32 in double, where the product is exact and the sum is rounded to odd, so that rounding it again is
    innocent (Boldo and Melquiond 2008). float64 by exact product (Dekker) and exact sum (Knuth).
    """
    if a.dtype == np.float32:
        product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
        total, rest = two_sum(product, addend)
        even = (total.view(np.int64) & 1) == 0
        odd = np.nextafter(total, np.where(rest > 0, np.inf, -np.inf))
        return np.where(np.isfinite(rest) & (rest != 0) & even, odd, total).astype(np.float32)
    product = a * b
    (a1, a0), (b1, b0) = halves(a), halves(b)
    low = ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0
    total, rest = two_sum(product, c)
    exact = total + (rest + low)
    return np.where(np.isfinite(exact), exact, total)


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum and what rounding left off."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A double as the sum of two of 26 bits (Veltkamp)."""
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def evaluate(root: Expr, values: dict[str, np.ndarray]) -> np.ndarray:
    """The value of `root` in numpy, lane by lane."""
    table: dict[int, Any] = {}
    size = len(next(iter(values.values())))
    with np.errstate(all="ignore"):
        for e in walk(root):
            args = [table[id(a)] for a in e.args]
            if e.op == "SLOT":
                result = values[e.attrs]
            elif e.op == "CONST":
                result = np.full(size, e.attrs, e.dtype)
            elif e.op == "CAST":
                result = args[0].astype(e.dtype)
            elif e.op == "BITCAST":
                result = args[0].view(e.dtype)
            elif e.op == "MULACC":
                result = fused_multiply_add(*args)
            else:
                result = ELEMENTWISE[e.op].numpy(*args)
            assert result.dtype == np.dtype(e.dtype), (e.op, result.dtype, e.dtype)
            table[id(e)] = result
    return table[id(root)]


BINARY = {
    "ADD": ("fadd", "add"),
    "SUB": ("fsub", "sub"),
    "MUL": ("fmul", "mul"),
    "DIV": ("fdiv", ""),
    "AND": ("", "and"),
    "OR": ("", "or"),
    "XOR": ("", "xor"),
    "SHL": ("", "shl"),
    "SHR": ("", "ashr"),
}
COMPARE = {"CMPLT": ("olt", "slt"), "CMPLE": ("ole", "sle"), "CMPEQ": ("oeq", "eq"), "CMPNE": ("une", "ne")}
INTRINSIC = {
    "ABS": "fabs",
    "SQRT": "sqrt",
    "TRUNC": "trunc",
    "FLOOR": "floor",
    "ROUND": "roundeven",
    "MULACC": "fma",
    "MAX": "maximum",
    "MIN": "minimum",
}


def literal(value: float | int | bool, dtype: str) -> str:
    """A scalar literal of LLVM IR."""
    if dtype in ("float32", "float64"):
        rounded = float(np.dtype(dtype).type(value))
        return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
    return str(int(value))


def llvm_text(root: Expr, arguments: list[Expr], lanes: int) -> str:
    """LLVM IR of `void kernel(ptr out, ptr in0, ptr in1, i64 vectors)`, `lanes` elements at a time."""
    declared: dict[str, str] = {}
    names: dict[int, str] = {}
    body: list[str] = []

    def vector(dtype: str) -> str:
        return f"<{lanes} x {LLVM_TYPE[dtype]}>"

    for number, e in enumerate(walk(root)):
        kind = vector(e.dtype)
        args = [names[id(a)] for a in e.args]
        name = names[id(e)] = f"%v{number}"
        floating = bool(e.args) and e.args[-1].dtype.startswith(("float", "bfloat"))
        source = vector(e.args[-1].dtype) if e.args else ""
        if e.op == "CONST":
            one = f"{LLVM_TYPE[e.dtype]} {literal(e.attrs, e.dtype)}"
            names[id(e)] = "<" + ", ".join([one] * lanes) + ">"
        elif e.op == "SLOT":
            position = arguments.index(e)
            body += [
                f"  %p{number} = getelementptr {kind}, ptr %in{position}, i64 %i",
                f"  {name} = load {kind}, ptr %p{number}, align 4",
            ]
        elif e.op in BINARY:
            body.append(f"  {name} = {BINARY[e.op][0 if floating else 1]} {kind} {args[0]}, {args[1]}")
        elif e.op in COMPARE:
            code = f"fcmp {COMPARE[e.op][0]}" if floating else f"icmp {COMPARE[e.op][1]}"
            body.append(f"  {name} = {code} {source} {args[0]}, {args[1]}")
        elif e.op == "WHERE":
            body.append(f"  {name} = select {vector('bool')} {args[0]}, {kind} {args[1]}, {kind} {args[2]}")
        elif e.op == "NEG":
            body.append(f"  {name} = fneg {kind} {args[0]}")
        elif e.op == "RECIP":
            one = "<" + ", ".join([f"{LLVM_TYPE[e.dtype]} 1.0"] * lanes) + ">"
            body.append(f"  {name} = fdiv {kind} {one}, {args[0]}")
        elif e.op in ("CAST", "BITCAST"):
            body.append(f"  {name} = {conversion(e)} {source} {args[0]} to {kind}")
        else:
            code = f"@llvm.{INTRINSIC[e.op]}.v{lanes}f{e.dtype[-2:]}"
            declared[code] = f"declare {kind} {code}({', '.join([kind] * len(args))})"
            body.append(f"  {name} = call {kind} {code}({', '.join(f'{kind} {a}' for a in args)})")
    kind = vector(root.dtype)
    return "\n".join(
        [
            *declared.values(),
            "define void @kernel(ptr noalias %out, ptr noalias %in0, ptr noalias %in1, i64 %vectors) {",
            "entry:",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [0, %entry], [%next, %loop]",
            *body,
            f"  %q = getelementptr {kind}, ptr %out, i64 %i",
            f"  store {kind} {names[id(root)]}, ptr %q, align 4",
            "  %next = add i64 %i, 1",
            "  %more = icmp ult i64 %next, %vectors",
            "  br i1 %more, label %loop, label %done",
            "done:",
            "  ret void",
            "}",
        ]
    )


def conversion(e: Expr) -> str:
    """The LLVM instruction of a CAST or BITCAST."""
    if e.op == "BITCAST":
        return "bitcast"
    source, target = np.dtype(e.args[0].dtype), np.dtype(e.dtype)
    if source.kind == "f" and target.kind == "f":
        return "fpext" if target.itemsize > source.itemsize else "fptrunc"
    if source.kind == "f":
        return "fptosi"
    if target.kind == "f":
        return "sitofp"
    return "sext" if target.itemsize > source.itemsize else "trunc"


class Compiled:
    """An expression as machine code: call it with the arrays of its arguments."""

    def __init__(self, root: Expr, arguments: list[Expr], lanes: int = 16):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.lanes, self.dtype, self.text = lanes, np.dtype(root.dtype), llvm_text(root, arguments, lanes)
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        module = llvm.parse_assembly(self.text)
        module.triple = machine.triple
        module.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        self.assembly = machine.emit_assembly(module)
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address("kernel")
        self.call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(address)

    def __call__(self, *inputs: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        size = len(inputs[0])
        padded = -(-size // self.lanes) * self.lanes
        if padded != size:
            inputs = tuple(np.resize(a, padded) for a in inputs)
        result = np.empty(padded, self.dtype) if out is None else out
        pointers = [a.ctypes.data for a in (inputs[0], inputs[-1])]
        self.call(result.ctypes.data, *pointers, padded // self.lanes)
        return result[:size]
