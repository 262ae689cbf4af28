"""The errors of the ONNX front end, in the user's words: node, op, opset, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyinfer.errors import InvalidArgument, InvalidGraph, InvalidProtobuf, NoModel, NoSuchFile
from tinyinfer.errors import NotImplemented as NotSupported  # the public name hides a builtin

__all__ = [
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NeedsHost",
    "NeedsValue",
    "NoModel",
    "NoSuchFile",
    "NotSupported",
    "UnsupportedModel",
]


class UnsupportedModel(NotSupported):
    """The model holds nodes that cannot be imported; `blockers` has one line for each of them."""

    def __init__(self, blockers: Iterable[str]):
        self.blockers = tuple(blockers)
        super().__init__("\n".join(self.blockers))


class NeedsValue(NotSupported):
    """A shape, axis or similar depends on the value of graph inputs; `inputs` names them.

    Importing again with these in `known_values` specialises the graph to their value. `node` is the value
    that is needed: a session computes it, and goes on with what it is.
    """

    def __init__(self, message: str, inputs: Iterable[str], node: Any = None):
        self.inputs, self.node = tuple(inputs), node
        super().__init__(message)


class NeedsHost(NotSupported):
    """A node that the host computes between kernels stands where only kernels can."""
