"""What an ONNX value is during the import: a node of the IR, or something that only the host can hold.

Tensors of numbers are nodes. Sequences and optionals are known structures of values: their lengths and the
presence of their elements belong to the specialisation, as shapes do. Strings, maps and whatever else no
kernel computes are references to objects that exist while the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.node import Node


@dataclass(frozen=True)
class HostValue:
    """An object of the host, under `key` while the model runs. `kind` is "string" for a tensor of strings
    (whose `shape` is known), else "object": a map or the like. `known` is the value where it is a constant.
    """

    kind: str
    key: str = ""
    shape: tuple[int, ...] = ()
    known: Any = field(default=None, compare=False)

    @property
    def dtype(self) -> str:
        """In errors and type checks: no dtype of the IR."""
        return "string" if self.kind == "string" else "object"


@dataclass(frozen=True)
class SequenceValue:
    """A sequence of values. `dtype` is the element type of a sequence that was made empty."""

    elements: tuple[Value, ...]
    dtype: str = ""


@dataclass(frozen=True)
class Absent:
    """An optional without an element; an optional that has one is that element."""


Value = Node | HostValue | SequenceValue | Absent


@dataclass(frozen=True)
class HostCall:
    """What an import function returns in place of results: a call that the host makes between kernels.

    At run time `function` gets one argument for each of `inputs`: a numpy array (of objects for strings), a
    list for a sequence, a dict for a map, None for an input that is not there. It returns a tuple of
    `outputs` such values. It must not change its arguments. `bodies` are subgraphs that it drives: it gets
    one callable for each, ahead of the other arguments, which takes and returns lists of values. A `fresh`
    call gives something else each time: it is made in every run, also where its arguments are constants.
    """

    function: Callable[..., Sequence[Any]]
    inputs: tuple[Value | None, ...]
    outputs: int
    bodies: tuple[Any, ...] = ()
    fresh: bool = False


def nodes_of(value: Value | None) -> Iterator[Node]:
    """The nodes in a value."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, SequenceValue):
        for element in value.elements:
            yield from nodes_of(element)


def replace_nodes(value: Any, change: Callable[[Node], Node]) -> Any:
    """The value with `change` applied to each node in it."""
    if isinstance(value, Node):
        return change(value)
    if isinstance(value, SequenceValue):
        return SequenceValue(tuple(replace_nodes(e, change) for e in value.elements), value.dtype)
    return value


def describe(value: Value) -> str:
    """A value's type for error messages."""
    if isinstance(value, Node):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, HostValue):
        return f"string{list(value.shape)}" if value.kind == "string" else "map"
    return "sequence" if isinstance(value, SequenceValue) else "optional without an element"


# ---- from run-time values to values of the import

Signature = Any
"""What a specialisation holds for: dtype and shape of an array, element signatures of a list; hashable."""


def signature(value: Any) -> Signature:
    """The signature of a run-time value."""
    if isinstance(value, np.ndarray):
        return (_kind(value.dtype), value.shape)
    if isinstance(value, (list, tuple)):
        return ("list", tuple(signature(v) for v in value))
    return None if value is None else "object"


@cache
def _kind(dtype: np.dtype) -> str:
    return "string" if dtype.kind in "OSU" else dtype.name


def value_of(described: Signature, key: str) -> Value:
    """The value that a run-time value of this signature is during the import, when it lies under `key`."""
    if described is None:
        return Absent()
    if described == "object":
        return HostValue("object", key)
    kind, content = described
    if kind == "list":
        return SequenceValue(tuple(value_of(s, f"{key}[{i}]") for i, s in enumerate(content)))
    if kind == "string":
        return HostValue("string", key, content)
    return build.input_node(key, content, kind)


def store(environment: dict[str, Any], key: str, value: Any) -> None:
    """Put a run-time value where `value_of` looks for it."""
    if isinstance(value, (list, tuple)):
        for number, element in enumerate(value):
            store(environment, f"{key}[{number}]", element)
    else:
        environment[key] = value


@dataclass(frozen=True)
class Template:
    """How to take a value out of the environment of a run. `copied` makes an array of its own."""

    kind: str  # "key" "known" "list" "none"
    content: Any = None
    copied: bool = False

    def take(self, environment: Mapping[str, Any]) -> Any:
        """The run-time value."""
        if self.kind == "key":
            found = environment[self.content]
            return np.array(found, order="C") if self.copied and isinstance(found, np.ndarray) else found
        if self.kind == "list":
            return [t.take(environment) for t in self.content]
        return np.array(self.content) if self.copied else self.content


def template(value: Value | None, key_of: Callable[[Node], Template]) -> Template:
    """The template of a value; `key_of` gives that of a node."""
    if isinstance(value, Node):
        return key_of(value)
    if isinstance(value, SequenceValue):
        return Template("list", tuple(template(e, key_of) for e in value.elements))
    if isinstance(value, HostValue):
        return Template("known", value.known) if value.known is not None else Template("key", value.key)
    return Template("none")
