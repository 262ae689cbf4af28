"""OpenCL C where values are stored as halves: functions that are good to a half's precision, and short.

The functions of OpenCL are good to float32's last bits, which for `erf` and `tanh` takes a hundred
instructions and the registers of several work-items. What is stored in halves keeps eleven bits of that.
"""

from __future__ import annotations

from dataclasses import replace

from tinyinfer.backends.clike.opencl_c import OPENCL_C

_SHORT = {
    "EXP": "native_exp({0})",
    "LOG": "native_log({0})",
    "SQRT": "native_sqrt({0})",
    "RECIP": "native_recip({0})",
    "DIV": "native_divide({0}, {1})",
    "TANH": "ti_short_tanh({0})",
    "SIGMOID": "native_recip(1.0f + native_exp(-{0}))",
    "ERF": "ti_short_erf({0})",
}

ADRENO_C = replace(OPENCL_C, trips="(get_work_dim() == 3 ? {} : 0)")
"""Launches have three dimensions, which compilers do not know: they write out no loop, whose reads would all
wait in registers at the same time."""

HALF_PRECISION = replace(
    ADRENO_C,
    operations={**ADRENO_C.operations, **{(op, "float32"): text for op, text in _SHORT.items()}},
)
