"""Exceptions of the project: the names that users of onnxruntime know, each also the natural built-in."""

from __future__ import annotations


class TinyInferError(Exception):
    """Base of every error that tinyinfer raises on purpose."""


class NoSuchFile(TinyInferError, FileNotFoundError):
    """A model, or a file that it names, does not exist."""


class InvalidProtobuf(TinyInferError, ValueError):
    """The bytes are no ONNX protobuf: another format, truncated, or damaged."""


class InvalidBundle(TinyInferError, ValueError):
    """The bytes are no bundle that this version reads: another format or version, cut short, damaged,
    changed, or not signed as the caller asks. The message says what is wrong and where."""


class NoModel(TinyInferError, ValueError):
    """A protobuf without a graph: there is nothing to run."""


class InvalidGraph(TinyInferError, ValueError):
    """The model breaks a rule of ONNX; the message names the node, its op, opset, and what was expected."""


class NotImplemented(TinyInferError, NotImplementedError):  # noqa: A001 - the name that onnxruntime's users catch
    """The model is valid, but uses something that tinyinfer cannot do; the message lists all of it."""


class InvalidArgument(TinyInferError, ValueError):
    """A call's argument (feed, shape, dtype, option) is not what the model or the function expects."""


class Fail(TinyInferError, RuntimeError):
    """An operation could not be carried out."""


class RuntimeException(TinyInferError, RuntimeError):
    """Something went wrong while a compiled model was running."""


class EPFail(TinyInferError, RuntimeError):
    """A device failed: compiler, driver or memory."""


class NotFound(TinyInferError, LookupError):
    """A name (node, output, option, device) that is not there."""
