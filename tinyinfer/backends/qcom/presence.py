"""Why this machine has no Adreno GPU that can be used: what of its driver is here and what is not."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tinyinfer.backends.opencl.platforms import vendor_libraries
from tinyinfer.backends.qcom.kgsl.abi import PATH


def without_adreno(found: Sequence[str]) -> str:
    """What to say where OpenCL has devices, `found` in words, and none of them is an Adreno."""
    return f"no OpenCL device of this machine is a Qualcomm Adreno GPU (there are {'; '.join(found)})"


def missing_parts() -> str:
    """What of an Adreno's driver is here and what is not."""
    return f"{_library()}; {_kernel_device()}"


def _library() -> str:
    libraries = vendor_libraries()
    if not libraries:
        return (
            "the vendor's libOpenCL.so is not installed (it comes with the GPU's driver: part of Android,"
            " on Linux a package of the board's vendor)"
        )
    return (
        f"the vendor's {libraries[0]} is here, but no OpenCL loader takes it: list it in a file"
        " /etc/OpenCL/vendors/adreno.icd, or name it in OCL_ICD_VENDORS"
    )


def _kernel_device() -> str:
    if not os.path.exists(PATH):
        return f"there is no {PATH}"
    if not os.access(PATH, os.R_OK | os.W_OK):
        return f"{PATH} is here, but this user may not open it"
    return f"{PATH} can be opened"
