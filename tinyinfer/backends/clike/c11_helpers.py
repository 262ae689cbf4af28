"""Small C functions for what an operator of C does not mean: saturating, never trapping, keeping NaN.

They have no branches where compilers could otherwise not vectorise the loops that they are inlined in.
"""

from __future__ import annotations

import numpy as np

FLOATS = {"float": ("f", "f"), "double": ("", "")}
"""The suffix of mathematical functions and that of literals."""

_GENERAL = {
    "ti_floor_divide": """\
static inline int64_t ti_floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}""",
    "ti_floor_modulo": """\
static inline int64_t ti_floor_modulo(int64_t a, int64_t b) {
    return a % b < 0 ? a % b + b : a % b;
}""",
    "ti_bits_of_float": """\
static inline uint32_t ti_bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}""",
    "ti_float_of_bits": """\
static inline float ti_float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}""",
    "ti_bits_of_double": """\
static inline uint64_t ti_bits_of_double(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}""",
    "ti_double_of_bits": """\
static inline double ti_double_of_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}""",
    # x = n · ln 2 + r; e to the r by a polynomial: least squares of (e^r - 1 - r) / r² at Chebyshev's points
    "ti_exp_float": """\
static inline float ti_exp_float(float x) {
    const float above = x < -105.0f ? -105.0f : x, inside = above > 90.0f ? 90.0f : above;
    const float shifted = inside * 1.44269504f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    const float r = (inside - n * 0x1.63p-1f) + n * 2.12194440e-4f;
    const float high = (0.00139461376f * r + 0.00836910866f) * r + 0.0416662693f;
    const float rest = (high * r + 0.166665167f) * r + 0.5f;
    const uint32_t power = ti_bits_of_float(shifted) - 0x4B400000u + 256u, half = power >> 1;
    const float scale = ti_float_of_bits((half - 1u) << 23);
    return (1.0f + (r + r * r * rest)) * scale * ti_float_of_bits((power - half - 1u) << 23);
}""",
    "ti_half": """\
#if defined(__F16C__) && defined(__FLT16_MANT_DIG__)
__extension__ typedef _Float16 ti_half;
#define TI_HALF
#elif defined(__ARM_FP16_FORMAT_IEEE) && defined(__ARM_FP) && (__ARM_FP & 2)
__extension__ typedef __fp16 ti_half;
#define TI_HALF
#endif""",
    "ti_f32_from_f16": """\
static inline float ti_f32_from_f16(uint16_t half) {
#if defined(TI_HALF)
    ti_half x;
    memcpy(&x, &half, sizeof x);
    return (float)x;
#else
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    const uint32_t normal = (rest << 13) + 0x38000000u, special = (rest << 13) | 0x7F800000u;
    const uint32_t tiny = ti_bits_of_float((float)rest * 0x1p-24f);
    return ti_float_of_bits(sign | (rest >= 0x7C00u ? special : rest >= 0x0400u ? normal : tiny));
#endif
}""",
    "ti_f16_from_f32": """\
static inline uint16_t ti_f16_from_f32(float x) {
#if defined(TI_HALF)
    const ti_half half = (ti_half)x;
    uint16_t code;
    memcpy(&code, &half, sizeof code);
    return code;
#else
    const uint32_t bits = ti_bits_of_float(x), rest = bits & 0x7FFFFFFFu, payload = (rest >> 13) & 0x3FFu;
    const uint32_t normal = (rest + 0x0FFFu + ((rest >> 13) & 1u) - 0x38000000u) >> 13;
    const uint32_t tiny = ti_bits_of_float(ti_float_of_bits(rest) + 0.5f) - 0x3F000000u;
    const uint32_t nan = 0x7C00u | (payload != 0 ? payload : 0x200u);
    const uint32_t finite = rest >= 0x477FF000u ? 0x7C00u : rest >= 0x38800000u ? normal : tiny;
    return (uint16_t)(((bits >> 16) & 0x8000u) | (rest > 0x7F800000u ? nan : finite));
#endif
}""",
    "ti_round_f16": """\
static inline float ti_round_f16(float x) {
    return ti_f32_from_f16(ti_f16_from_f32(x));
}""",
}


def _float_helpers(kind: str) -> dict[str, str]:
    suffix, literal = FLOATS[kind]
    macro = "FP_FAST_FMA" + suffix.upper()
    exact = f"0x1p{23 if kind == 'float' else 52}{literal}"
    # the product of two floats is exact in double: rounded once, but for one sum in a hundred million
    fused = "(float)((double)a * (double)b + (double)c)" if kind == "float" else "a * b + c"
    return {
        f"ti_sigmoid_{kind}": f"""\
static inline {kind} ti_sigmoid_{kind}({kind} x) {{
    return 1.0{literal} / (1.0{literal} + {"ti_exp_float" if kind == "float" else "exp"}(-x));
}}""",
        f"ti_max_{kind}": f"""\
static inline {kind} ti_max_{kind}({kind} a, {kind} b) {{
    return ((a >= b) | (a != a)) ? a : b;
}}""",
        f"ti_min_{kind}": f"""\
static inline {kind} ti_min_{kind}({kind} a, {kind} b) {{
    return ((a <= b) | (a != a)) ? a : b;
}}""",
        f"ti_modulo_{kind}": f"""\
static inline {kind} ti_modulo_{kind}({kind} a, {kind} b) {{
    const {kind} rest = fmod{suffix}(a, b);
    const int below = rest < 0.0{literal}, above = rest > 0.0{literal};
    return b < 0.0{literal} ? (above ? rest + b : rest) : (below ? rest + b : rest);
}}""",
        f"ti_round_{kind}": f"""\
static inline {kind} ti_round_{kind}({kind} x) {{
#if defined(__SSE4_1__) || defined(__aarch64__) || defined(__ARM_FEATURE_DIRECTED_ROUNDING)
    return rint{suffix}(x);
#else
    const {kind} size = fabs{suffix}(x);
    return size < {exact} ? copysign{suffix}((size + {exact}) - {exact}, x) : x;
#endif
}}""",
        f"ti_fused_{kind}": f"""\
static inline {kind} ti_fused_{kind}({kind} a, {kind} b, {kind} c) {{
#if defined({macro}) || defined(__{macro}) || defined(__FMA__)
    return fma{suffix}(a, b, c);
#else
    return {fused};
#endif
}}""",
        f"ti_multiply_add_{kind}": f"""\
static inline {kind} ti_multiply_add_{kind}({kind} a, {kind} b, {kind} c) {{
#if defined({macro}) || defined(__{macro}) || defined(__FMA__)
    return fma{suffix}(a, b, c);
#else
    return a * b + c;
#endif
}}""",
    }


def _saturating(source: str, bits: int, signed: bool) -> tuple[str, str]:
    """The function that converts a float to an integer: truncated, saturated, NaN to 0.

    The number is clamped before it is converted, so that the conversion is defined for all.
    """
    kind, literal = (np.float32, "f") if source == "float" else (np.float64, "")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    target, tag = f"{'' if signed else 'u'}int{bits}_t", f"{'i' if signed else 'u'}{bits}"
    top = kind(high)
    exact = int(top) == high
    clamp = top if exact else np.nextafter(top, kind(0))
    largest = f"UINT{bits}_MAX" if not signed else f"INT{bits}_MAX"
    middle = "" if bits >= 32 else "(int32_t)"
    beyond = "" if exact else f"x >= {float(top).hex()}{literal} ? {largest} : "
    name = f"ti_{tag}_from_{source}"
    lowest, highest = (f"{float(v).hex()}{literal}" for v in (low, clamp))
    return (
        name,
        f"""\
static inline {target} {name}({source} x) {{
    const {source} above = x > {lowest} ? x : {lowest};
    const {source} inside = above < {highest} ? above : {highest};
    return ({target})(x != x ? 0 : {beyond}({target}){middle}inside);
}}""",
    )


def _integer_helpers(bits: int, signed: bool) -> dict[str, str]:
    kind, tag = f"{'' if signed else 'u'}int{bits}_t", f"{'i' if signed else 'u'}{bits}"
    wide = f"uint{64 if bits == 64 else 32}_t"
    unsigned = f"uint{bits}_t"
    safe = "b == 0 || b == -1 ? 1 : b" if signed else "b == 0 ? 1 : b"
    negated = f"b == -1 ? ({kind})(0u - ({wide})a) : " if signed else ""
    modulo = f"""\
    const {kind} safe = ({kind})({safe}), rest = ({kind})(a % safe);
    return ({kind})({"rest != 0 && (rest < 0) != (safe < 0) ? rest + safe : rest" if signed else "rest"});"""
    fill = "a < 0 ? -1 : 0" if signed else "0"
    return {
        f"ti_shift_left_{tag}": f"""\
static inline {kind} ti_shift_left_{tag}({kind} a, {kind} b) {{
    const {wide} count = ({unsigned})b;
    return ({kind})(count < {bits}u ? ({wide})a << (count & {bits - 1}u) : 0u);
}}""",
        f"ti_shift_right_{tag}": f"""\
static inline {kind} ti_shift_right_{tag}({kind} a, {kind} b) {{
    const {wide} count = ({unsigned})b;
    return ({kind})(count < {bits}u ? a >> (count & {bits - 1}u) : ({kind})({fill}));
}}""",
        f"ti_divide_{tag}": f"""\
static inline {kind} ti_divide_{tag}({kind} a, {kind} b) {{
    const {kind} safe = ({kind})({safe});
    return ({kind})(b == 0 ? 0 : {negated}({kind})(a / safe));
}}""",
        f"ti_modulo_{tag}": f"""\
static inline {kind} ti_modulo_{tag}({kind} a, {kind} b) {{
{modulo}
}}""",
        f"ti_remainder_{tag}": f"""\
static inline {kind} ti_remainder_{tag}({kind} a, {kind} b) {{
    const {kind} safe = ({kind})({safe});
    return ({kind})(a % safe);
}}""",
    }


def _all() -> dict[str, str]:
    found = dict(_GENERAL)
    for kind in FLOATS:
        found.update(_float_helpers(kind))
    for bits in (8, 16, 32, 64):
        for signed in (True, False):
            found.update(_integer_helpers(bits, signed))
            found.update(_saturating(source, bits, signed) for source in FLOATS)
    return found


HELPERS = _all()
"""Every helper by name; one that needs others comes after them."""
