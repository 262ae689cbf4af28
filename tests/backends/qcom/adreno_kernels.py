"""OpenCL C whose needs of registers and local memory are known in advance, and compiled kernels
with the statistics that a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyinfer.backends.qcom.statistics import CompiledKernel, CompilerStatistics, LoopStatistics

HALF = "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
SAMPLER = "__constant sampler_t S = CLK_NORMALIZED_COORDS_FALSE | CLK_ADDRESS_CLAMP | CLK_FILTER_NEAREST;\n"


def accumulators(count: int, work_group: int, local_bytes: int = 0, kind: str = "float4") -> str:
    """A loop that carries `count` vectors; with local memory, it reads a table there."""
    size = 16 if kind == "float4" else 8
    lines = [HALF if kind == "half4" else ""]
    lines.append(f"__kernel __attribute__((reqd_work_group_size({work_group}, 1, 1)))")
    lines.append(
        f"void k(__global const {kind} *a, __global const {kind} *b, __global {kind} *out, int n) {{"
    )
    value = "b[k]"
    if local_bytes:
        value = "table[(k + get_local_id(0)) & 15]"
        lines.append(f"__local {kind} table[{local_bytes // size}];")
        lines.append("table[get_local_id(0)] = a[get_global_id(0)];")
        lines.append("barrier(CLK_LOCAL_MEM_FENCE);")
    lines += [f"{kind} s{i} = a[{i * 64} + get_local_id(0)];" for i in range(count)]
    lines.append(f"for (int k = 0; k < n; k++) {{ {kind} v = {value};")
    lines += [f"s{i} = s{i} * v + s{(i + 1) % count};" for i in range(count)]
    lines.append("}")
    lines += [f"out[get_global_id(0) * {count} + {i}] = s{i};" for i in range(count)]
    return "\n".join([*lines, "}"])


def image_matmul(sampler: bool) -> str:
    """4 x 4 half outputs an item, both operands half images of four channels, half arithmetic."""
    read = "read_imageh({}, S, (int2)({}, {}))" if sampler else "read_imageh({}, (int2)({}, {}))"
    lines = [HALF, SAMPLER if sampler else ""]
    lines.append(
        "__kernel void k(read_only image2d_t a, read_only image2d_t b, write_only image2d_t o, int n) {"
    )
    lines.append("int x = get_global_id(0), y = get_global_id(1);")
    lines += [f"half4 c{i} = 0;" for i in range(4)]
    lines.append("for (int k = 0; k < n; k++) {")
    lines += [f"half4 w{i} = {read.format('b', 'x', f'4 * k + {i}')};" for i in range(4)]
    lines += [f"half4 a{i} = {read.format('a', 'k', f'4 * y + {i}')};" for i in range(4)]
    lines += [f"c{i} += a{i}.x * w0 + a{i}.y * w1 + a{i}.z * w2 + a{i}.w * w3;" for i in range(4)]
    lines.append("}")
    lines += [f"write_imageh(o, (int2)(x, 4 * y + {i}), c{i});" for i in range(4)]
    return "\n".join([*lines, "}"])


def compiled_kernel(loops: Sequence[LoopStatistics] = (), **statistics: Any) -> CompiledKernel:
    """A kernel of which the compiler said this; everything else is zero."""
    fields = CompilerStatistics.__dataclass_fields__
    said = CompilerStatistics(**{**dict.fromkeys(fields, 0), "double_wave": False, "waves": 16, **statistics})
    return CompiledKernel("k", "a630", said, tuple(loops), 1024, 0, 0, "")
