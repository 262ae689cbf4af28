"""Adreno GPUs without the vendor's user-space driver: memory, command streams and waits over /dev/kgsl-3d0.

Kernels come as machine code (`ShaderBinary`); compiling them, and the choice of this route, are elsewhere.
Not yet run on hardware: docs/kgsl.md says what was checked and how.
"""

from tinyinfer.backends.qcom.kgsl.device import Capabilities, KgslDevice, unavailable_reason
from tinyinfer.backends.qcom.kgsl.memory import Buffer, Cache
from tinyinfer.backends.qcom.kgsl.plan_stream import (
    Access,
    BufferArgument,
    Dispatch,
    ImageArgument,
    PlanStream,
    ScalarArgument,
)
from tinyinfer.backends.qcom.kgsl.shader import (
    BufferSlot,
    BufferViewSlot,
    ImageRules,
    ImageSlot,
    Launch,
    ScalarSlot,
    ShaderBinary,
    StorageImageSlot,
    SystemValues,
)
from tinyinfer.backends.qcom.kgsl.stream import Address, CommandStream
from tinyinfer.backends.qcom.kgsl.system import GpuFault, KgslError, KgslTimeout

__all__ = [
    "Access",
    "Address",
    "Buffer",
    "BufferArgument",
    "BufferSlot",
    "BufferViewSlot",
    "Cache",
    "Capabilities",
    "CommandStream",
    "Dispatch",
    "GpuFault",
    "ImageArgument",
    "ImageRules",
    "ImageSlot",
    "KgslDevice",
    "KgslError",
    "KgslTimeout",
    "Launch",
    "PlanStream",
    "ScalarArgument",
    "ScalarSlot",
    "ShaderBinary",
    "StorageImageSlot",
    "SystemValues",
    "unavailable_reason",
]
