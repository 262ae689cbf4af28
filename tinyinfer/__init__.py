"""tinyinfer: ONNX models compiled to native code through a three-op IR.

The names of this module are onnxruntime's where onnxruntime has them, so that `import tinyinfer as ort` is
the whole migration of common code. Everything is loaded on first use: importing this module costs no more
than its exceptions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyinfer.backends.registry import get_all_providers, get_available_providers, get_device
    from tinyinfer.errors import (
        EPFail,
        Fail,
        InvalidArgument,
        InvalidBundle,
        InvalidGraph,
        InvalidProtobuf,
        NoModel,
        NoSuchFile,
        NotFound,
        NotImplemented,
        RuntimeException,
        TinyInferError,
    )
    from tinyinfer.frontend.onnx.custom import CustomOps, custom_op, unregister_custom_op
    from tinyinfer.limits import Limits
    from tinyinfer.runtime.check import CheckReport, check_model
    from tinyinfer.runtime.defaults import set_default_logger_severity, set_seed
    from tinyinfer.runtime.dma_buffer import DmaArray, dma_buffer
    from tinyinfer.runtime.session import InferenceSession
    from tinyinfer.runtime.session_options import (
        ExecutionMode,
        GraphOptimizationLevel,
        RunOptions,
        SessionOptions,
    )
    from tinyinfer.runtime.signature import ModelMetadata, NodeArg

__version__ = "0.1.0"

_HOME = {
    "InferenceSession": "tinyinfer.runtime.session",
    "SessionOptions": "tinyinfer.runtime.session_options",
    "RunOptions": "tinyinfer.runtime.session_options",
    "GraphOptimizationLevel": "tinyinfer.runtime.session_options",
    "ExecutionMode": "tinyinfer.runtime.session_options",
    "DmaArray": "tinyinfer.runtime.dma_buffer",
    "dma_buffer": "tinyinfer.runtime.dma_buffer",
    "Limits": "tinyinfer.limits",
    "NodeArg": "tinyinfer.runtime.signature",
    "ModelMetadata": "tinyinfer.runtime.signature",
    "CustomOps": "tinyinfer.frontend.onnx.custom",
    "custom_op": "tinyinfer.frontend.onnx.custom",
    "unregister_custom_op": "tinyinfer.frontend.onnx.custom",
    "CheckReport": "tinyinfer.runtime.check",
    "check_model": "tinyinfer.runtime.check",
    "get_all_providers": "tinyinfer.backends.registry",
    "get_available_providers": "tinyinfer.backends.registry",
    "get_device": "tinyinfer.backends.registry",
    "set_default_logger_severity": "tinyinfer.runtime.defaults",
    "set_seed": "tinyinfer.runtime.defaults",
    "TinyInferError": "tinyinfer.errors",
    "NoSuchFile": "tinyinfer.errors",
    "InvalidProtobuf": "tinyinfer.errors",
    "InvalidBundle": "tinyinfer.errors",
    "NoModel": "tinyinfer.errors",
    "InvalidGraph": "tinyinfer.errors",
    "NotImplemented": "tinyinfer.errors",
    "InvalidArgument": "tinyinfer.errors",
    "Fail": "tinyinfer.errors",
    "RuntimeException": "tinyinfer.errors",
    "EPFail": "tinyinfer.errors",
    "NotFound": "tinyinfer.errors",
}

__all__ = [
    "CheckReport",
    "CustomOps",
    "DmaArray",
    "EPFail",
    "ExecutionMode",
    "Fail",
    "GraphOptimizationLevel",
    "InferenceSession",
    "InvalidArgument",
    "InvalidBundle",
    "InvalidGraph",
    "InvalidProtobuf",
    "Limits",
    "ModelMetadata",
    "NoModel",
    "NoSuchFile",
    "NodeArg",
    "NotFound",
    "NotImplemented",
    "RunOptions",
    "RuntimeException",
    "SessionOptions",
    "TinyInferError",
    "__version__",
    "check_model",
    "custom_op",
    "dma_buffer",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "set_default_logger_severity",
    "set_seed",
    "unregister_custom_op",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
