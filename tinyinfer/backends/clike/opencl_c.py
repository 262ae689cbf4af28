"""The dialect OpenCL C 1.2, which every vendor's compiler takes.

What an op means is what it means in C11, whose tables and helper functions are translated here. float16 is
stored as halves and computed in float, rounded after every operation, so that `cl_khr_fp16` is not needed;
float64 needs `cl_khr_fp64`.
"""

from __future__ import annotations

import re

from tinyinfer.backends.clike import c11
from tinyinfer.backends.clike.c11_helpers import HELPERS as C11_HELPERS
from tinyinfer.backends.clike.dialect import Dialect, NumberType, conversions, decimal

_INTEGERS = {"8": "char", "16": "short", "32": "int", "64": "long"}

TYPES = {
    "float32": NumberType("float", "float", "f32"),
    "float64": NumberType("double", "double", "f64"),
    "float16": NumberType("float", "half", "f16", round="ti_round_f16({})", converted=True),
    "bool": NumberType("bool", "uchar", "bool", "{} != 0", "(uchar)({})"),
    **{
        f"{'' if signed else 'u'}int{bits}": NumberType(
            f"{'' if signed else 'u'}{name}",
            f"{'' if signed else 'u'}{name}",
            f"{'i' if signed else 'u'}{bits}",
        )
        for signed in (True, False)
        for bits, name in _INTEGERS.items()
    },
}

_TRANSLATION = [
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\bu?int(8|16|32|64)_t\b", lambda m: f"{'u' * (m[0][0] == 'u')}{_INTEGERS[m[1]]}"),
        (
            r"\b(U?)INT(8|16|32|64)_(MAX|MIN)\b",
            lambda m: f"{m[1]}{dict(zip(_INTEGERS, ('CHAR', 'SHRT', 'INT', 'LONG')))[m[2]]}_{m[3]}",
        ),
        (r"\b(fmod|fma)f\(", lambda m: f"{m[1]}("),
        (r"\bhalf\b", lambda m: "stored"),  # names a type
    )
]


def _translated(text: str) -> str:
    for pattern, replacement in _TRANSLATION:
        text = pattern.sub(replacement, text)
    return text


def _float_helpers(kind: str) -> dict[str, str]:
    """What OpenCL C has functions of its own for."""
    bits, fast = ("uint", "FP_FAST_FMAF") if kind == "float" else ("ulong", "FP_FAST_FMA")
    multiply_add = {
        # where it is slow, fma is emulated in thousands of instructions
        f"ti_{name}_{kind}": f"""\
static inline {kind} ti_{name}_{kind}({kind} a, {kind} b, {kind} c) {{
#ifdef {fast}
    return fma(a, b, c);
#else
    return mad(a, b, c);
#endif
}}"""
        for name in ("fused", "multiply_add")
    }
    return multiply_add | {
        f"ti_bits_of_{kind}": f"""\
static inline {bits} ti_bits_of_{kind}({kind} x) {{
    return as_{bits}(x);
}}""",
        f"ti_{kind}_of_bits": f"""\
static inline {kind} ti_{kind}_of_bits({bits} bits) {{
    return as_{kind}(bits);
}}""",
        f"ti_round_{kind}": f"""\
static inline {kind} ti_round_{kind}({kind} x) {{
    return rint(x);
}}""",
    }


HELPERS = {
    **{name: _translated(text) for name, text in C11_HELPERS.items()},
    **_float_helpers("float"),
    **_float_helpers("double"),
    "ti_exp_float": """\
static inline float ti_exp_float(float x) {
    return exp(x);
}""",
    # Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: to 1.5e-7
    # near zero by their series: a difference of approximations has no digits left there
    "ti_short_erf": """\
static inline float ti_short_erf(float x) {
    const float a = fabs(x), s = x * x;
    const float t = native_recip(1.0f + 0.3275911f * a);
    const float low = (-0.284496736f + (1.421413741f + (-1.453152027f + 1.061405429f * t) * t) * t) * t;
    const float far = 1.0f - (0.254829592f + low) * t * native_exp(-s);
    const float near = 1.12837917f + s * (-0.376126389f + s * (0.112837917f - 0.0268661706f * s));
    return s < 0.25f ? x * near : copysign(far, x);
}""",
    "ti_short_tanh": """\
static inline float ti_short_tanh(float x) {
    const float s = x * x;
    const float far = 1.0f - 2.0f * native_recip(native_exp(2.0f * x) + 1.0f);
    return s < 0.25f ? x * (1.0f + s * (-0.333333333f + s * (0.133333333f - 0.0539682540f * s))) : far;
}""",
    "ti_lane": """\
static inline float ti_lane(float4 texel, int lane) {
    const float2 pair = lane < 2 ? texel.lo : texel.hi;
    return lane & 1 ? pair.y : pair.x;
}""",
    # runtimes without conversions in hardware emulate vstore_half in a hundred instructions
    "ti_round_f16": """\
static inline float ti_round_f16(float x) {
    const uint bits = as_uint(x), size = bits & 0x7FFFFFFFu;
    const uint normal = (size + 0x0FFFu + ((size >> 13) & 1u)) & 0xFFFFE000u;
    const uint tiny = as_uint((as_float(size) + 0.5f) - 0.5f);
    const uint large = size > 0x7F800000u ? size : normal >= 0x47800000u ? 0x7F800000u : normal;
    return as_float((bits & 0x80000000u) | (size < 0x38800000u ? tiny : large));
}""",
    # NVIDIA's mem_fence orders what a group sees, membar.gl what the device does
    "ti_device_fence": """\
static inline void ti_device_fence(void) {
#ifdef __NV_CL_C_VERSION
    asm volatile("membar.gl;" ::: "memory");
#else
    mem_fence(CLK_GLOBAL_MEM_FENCE);
#endif
}""",
    "ti_meet": """\
static inline void ti_meet(__global uchar *place, uint all) {
    volatile __global uint *come = (volatile __global uint *)place;
    barrier(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);
    if (get_local_id(0) == 0) {
        ti_device_fence();
        atomic_inc(come);
        while (*come < all) {
        }
        ti_device_fence();
    }
    barrier(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);
}""",
    "ti_part": """\
static inline void ti_part(__global uchar *place, uint groups) {
    volatile __global uint *come = (volatile __global uint *)place;
    if (get_local_id(0) == 0 && atomic_inc(come + 1) == groups - 1) {
        come[0] = 0;
        come[1] = 0;
    }
}""",
    "ti_write_halves": """\
#ifdef cl_khr_fp16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#endif
static inline void ti_write_halves(write_only image2d_t image, int2 place, float4 texel) {
#ifdef cl_khr_fp16
    write_imageh(image, place, convert_half4_rte(texel));
#else
    const float2 low = (float2)(ti_round_f16(texel.x), ti_round_f16(texel.y));
    write_imagef(image, place, (float4)(low, ti_round_f16(texel.z), ti_round_f16(texel.w)));
#endif
}""",
}
"""In the order of C11's, in which each needs only earlier ones."""


def bitcast(text: str, source: str, target: str) -> str:
    """BITCAST of an operand between dtypes of one size, neither of them bool."""
    if source == "float16":
        return f"as_{TYPES[target].value}(ti_f16_from_f32({text}))"
    if target == "float16":
        return f"ti_f32_from_f16(as_ushort({text}))"
    return f"as_{TYPES[target].value}({text})"


def literal(value: float | int | bool, dtype: str) -> str:
    """A number as a literal of this dtype."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype in ("float32", "float16", "float64"):
        text = decimal(float(value), dtype)
        special = text.lstrip("-") in ("INFINITY", "NAN")
        if dtype == "float64":
            return f"(double){text}" if special else text
        return text if special else f"{text}f"
    number = int(value)
    if dtype in ("int32", "int64") and number == -(1 << (int(dtype[3:]) - 1)):
        return "INT_MIN" if dtype == "int32" else "LONG_MIN"
    suffix = {"int64": "L", "uint64": "UL", "uint32": "u"}.get(dtype, "")
    return f"{number}{suffix}"


OPENCL_C = Dialect(
    name="OpenCL C",
    types=TYPES,
    operations=c11.OPERATIONS,
    cast=conversions(TYPES, literal),
    bitcast=bitcast,
    literal=literal,
    suffixes={"float32": ("", "f"), "float16": ("", "f"), "float64": ("", "")},
    index="int",
    wide_index="long",
    unsigned_wide="ulong",
    head="__kernel __attribute__((reqd_work_group_size({group}))) void {name}({parameters})",
    written="__global {type} *restrict {name}",
    read="const __global {type} *restrict {name}",
    image="{access}_only image2d_t {name}",
    helpers=HELPERS,
)

HEADING = """\
#pragma OPENCL FP_CONTRACT OFF
#ifdef FP_FAST_FMAF
#define TI_MULTIPLY_ADD fma
#else
#define TI_MULTIPLY_ADD mad
#endif"""
DOUBLES = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable"


def program_text(kernels: list[str], doubles: bool) -> str:
    """A program of these kernels, with the helper functions that they call."""
    text = "\n\n".join(kernels)
    needed: dict[str, str] = {}
    for name, helper in reversed(HELPERS.items()):
        if any(re.search(rf"\b{name}\(", t) for t in (text, *needed.values())):
            needed[name] = helper
    head = [HEADING, *([DOUBLES] if doubles else [])]
    return "\n\n".join(["\n".join(head), *reversed(needed.values()), text]) + "\n"
