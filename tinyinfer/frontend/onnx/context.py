"""What an import function sees of its ONNX node: checked attributes, constants, errors that name the node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from tinyinfer.frontend.onnx.errors import InvalidGraph, NeedsValue, NotSupported
from tinyinfer.frontend.onnx.tensors import element_name
from tinyinfer.frontend.onnx.values import HostCall
from tinyinfer.ir.build import constant
from tinyinfer.ir.node import Literal, Node, topological_order

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.importer import Importer
    from tinyinfer.frontend.onnx.scope import Scope
    from tinyinfer.frontend.onnx.values import Value

FLOATS = frozenset(("float16", "bfloat16", "float32", "float64"))
"""The types that ONNX's operators on floats take."""

_FIELD: dict[int, str] = {
    AttributeProto.INT: "i",
    AttributeProto.FLOAT: "f",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.INTS: "ints",
    AttributeProto.FLOATS: "floats",
    AttributeProto.STRINGS: "strings",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
}


class NodeContext:
    """One ONNX node while it is imported."""

    def __init__(
        self,
        proto: NodeProto,
        name: str,
        domain: str,
        opset: int,
        attributes: dict[str, AttributeProto],
        importer: Importer,
        scope: Scope,
    ):
        self.proto, self.name, self.domain, self.opset = proto, name, domain, opset
        self.op_type: str = proto.op_type
        self.outputs = len(proto.output)
        self.folds = True
        """Whether results that are small and constant are computed at once; import functions may say no."""
        self._attributes, self.importer, self.scope = attributes, importer, scope

    # ---- errors

    @property
    def label(self) -> str:
        """How errors call this node."""
        return f"node '{self.name}' ({self.op_type}, opset {self.opset})"

    def fail(self, message: str) -> NoReturn:
        """The model breaks a rule of ONNX at this node."""
        raise InvalidGraph(f"{self.label}: {message}")

    def unsupported(self, message: str) -> NoReturn:
        """The model is right, but this is not supported."""
        raise NotSupported(f"{self.label}: {message}")

    def require(self, condition: bool, message: str) -> None:
        """Fail with `message` unless `condition` holds."""
        if not condition:
            self.fail(message)

    # ---- attributes

    @property
    def attributes(self) -> list[AttributeProto]:
        """The attributes that are given; references to parameters of the function around are resolved."""
        return list(self._attributes.values())

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self._attributes

    def _value(self, name: str, kind: int, default: Any) -> Any:
        attribute = self._attributes.get(name)
        if attribute is None:
            if default is _REQUIRED:
                self.fail(f"the attribute '{name}' is missing")
            return default
        kind_name = AttributeProto.AttributeType.Name
        # IR version 1 had no type field
        if attribute.type not in (kind, AttributeProto.UNDEFINED):
            self.fail(
                f"the attribute '{name}' must be of type {kind_name(kind)}, not {kind_name(attribute.type)}"
            )
        return getattr(attribute, _FIELD[kind])

    def integer(
        self,
        name: str,
        default: Any = None,
        minimum: int | None = None,
        maximum: int | None = None,
        choices: Iterable[int] | None = None,
    ) -> Any:
        """An integer attribute; `default=None` means that None is returned where it is absent."""
        value = self._value(name, AttributeProto.INT, default)
        if value is not None:
            value = int(value)
            if choices is not None and value not in choices:
                self.fail(f"the attribute '{name}' must be one of {sorted(choices)}, not {value}")
            if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
                self.fail(f"the attribute '{name}' is {value}; expected {_interval(minimum, maximum)}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that is 0 or 1."""
        return bool(self.integer(name, int(default)))

    def number(self, name: str, default: Any = None) -> Any:
        """A float attribute: the float32 of the file, widened."""
        value = self._value(name, AttributeProto.FLOAT, default)
        return None if value is None else float(value)

    def string(self, name: str, default: Any = None, choices: Iterable[str] | None = None) -> Any:
        """A string attribute, checked against `choices`."""
        value = self._value(name, AttributeProto.STRING, default)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value is not None and choices is not None and value not in choices:
            self.fail(f"the attribute '{name}' must be one of {sorted(choices)}, not '{value}'")
        return value

    def strings(self, name: str, default: Any = None) -> Any:
        """A list of strings."""
        value = self._value(name, AttributeProto.STRINGS, default)
        return (
            None
            if value is None
            else [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        )

    def integers(
        self, name: str, default: Any = None, length: int | None = None, minimum: int | None = None
    ) -> Any:
        """A list of integers of `length`, none below `minimum`."""
        value = self._value(name, AttributeProto.INTS, default)
        if value is None:
            return None
        value = [int(v) for v in value]
        if length is not None and len(value) != length:
            self.fail(f"the attribute '{name}' must hold {length} numbers, not {len(value)}: {value}")
        if minimum is not None and any(v < minimum for v in value):
            self.fail(f"the attribute '{name}' must hold numbers of at least {minimum}, not {value}")
        return value

    def numbers(self, name: str, default: Any = None, length: int | None = None) -> Any:
        """A list of floats of `length`."""
        value = self._value(name, AttributeProto.FLOATS, default)
        if value is None:
            return None
        value = [float(v) for v in value]
        if length is not None and len(value) != length:
            self.fail(f"the attribute '{name}' must hold {length} numbers, not {len(value)}")
        return value

    def tensor(self, name: str, default: Any = None) -> Literal | None:
        """A tensor attribute as a literal, or None."""
        value = self._value(name, AttributeProto.TENSOR, default)
        return (
            None
            if value is None
            else self.importer.reader.literal(value, f"{self.label}: attribute '{name}'")
        )

    def texts(self, name: str) -> np.ndarray | None:
        """A tensor attribute that holds strings, as an array of objects; None if it holds anything else."""
        value = self._value(name, AttributeProto.TENSOR, None)
        return self.value_tensor(name) if value is not None and value.data_type == TENSOR.STRING else None

    def value_tensor(self, name: str) -> np.ndarray | None:
        """A tensor attribute as an array, of objects where it holds strings; or None."""
        value = self._value(name, AttributeProto.TENSOR, None)
        if value is None:
            return None
        found = self.importer.reader.value(value, f"{self.label}: attribute '{name}'")
        return found.attrs.array if isinstance(found, Node) else found.known

    def sparse_tensor(self, name: str) -> Literal:
        """A required sparse tensor attribute, dense."""
        value = self._value(name, AttributeProto.SPARSE_TENSOR, _REQUIRED)
        return self.importer.reader.sparse(value, f"{self.label}: attribute '{name}'")

    def graph(self, name: str) -> GraphProto:
        """A required subgraph attribute."""
        return self._value(name, AttributeProto.GRAPH, _REQUIRED)

    def dtype(self, name: str, default: str | None = None) -> str | None:
        """An attribute that holds an ONNX element type, as a numpy name."""
        value = self.integer(name, None)
        return default if value is None else element_name(value, f"{self.label}: attribute '{name}'")

    # ---- what the host computes

    def host_call(
        self, function: Callable[..., Sequence[Any]], inputs: Sequence[Value | None], outputs: int = 1
    ) -> HostCall:
        """What an import function returns where the host computes the results between kernels.

        `function` gets numpy arrays (of objects for strings; lists for sequences, dicts for maps) and returns
        a tuple of such; the shapes of its results need not be known before. See `values.HostCall`.
        """
        return HostCall(function, tuple(inputs), outputs)

    # ---- shapes

    def axis(self, value: int, rank: int, what: str = "axis") -> int:
        """An axis within `-rank … rank - 1`, made non-negative."""
        if not -rank <= value < rank:
            self.fail(f"{what} {value} is out of range for a tensor of rank {rank}")
        return int(value) % rank

    def axes(self, values: Sequence[int], rank: int, what: str = "axes") -> list[int]:
        """Axes made non-negative; each at most once."""
        result = [self.axis(int(v), rank, what) for v in values]
        if len(set(result)) != len(result):
            self.fail(f"{what} {list(values)} name an axis twice")
        return result

    def table_size(self, size: int, what: str) -> None:
        """Fail for an axis so long that a table of its positions would be over the limit."""
        limit = self.importer.limits.constant_elements
        self.require(size <= limit, f"{what} {size} is over the limit of {limit}")

    # ---- constants

    def known(self, x: Node) -> np.ndarray | None:
        """The value of `x` if it depends on no graph input, else None."""
        return self.importer.known(x)

    def folded(self, x: Node) -> Node:
        """`x` as a constant if it depends on no graph input, else as it is."""
        value = self.importer.known(x)
        return x if value is None else constant(value)

    def constant(self, x: Node, what: str) -> np.ndarray:
        """The value of input `what`, which must not depend on what is fed (NeedsValue otherwise)."""
        value = self.importer.known(x)
        if value is None:
            inputs = [n.attrs for n in topological_order([x]) if n.op == "INPUT"]
            if not inputs:
                self.unsupported(
                    f"the input '{what}' needs a value that is too large to compute during the import"
                )
            raise NeedsValue(
                f"{self.label}: the input '{what}' must be a constant, but depends on the graph inputs "
                f"{inputs}",
                inputs,
                x,
            )
        return value

    def constant_ints(self, x: Node, what: str, length: int | None = None) -> list[int]:
        """The value of a one-dimensional (or scalar) integer input that must be constant."""
        value = self.constant(x, what)
        if value.dtype.kind not in "iu" or value.ndim > 1:
            self.fail(f"the input '{what}' must be a list of integers, not {value.dtype}{list(value.shape)}")
        result = [int(v) for v in value.reshape(-1)]
        if length is not None and len(result) != length:
            self.fail(f"the input '{what}' must hold {length} numbers, not {len(result)}: {result}")
        return result

    def constant_scalar(self, x: Node, what: str) -> Any:
        """The single number of an input that must be constant."""
        value = self.constant(x, what)
        if value.size != 1:
            self.fail(f"the input '{what}' must be one number, not of shape {list(value.shape)}")
        return value.reshape(-1)[0].item()

    def all_given(self, inputs: Sequence[Any]) -> None:
        """Fail where a list of inputs is empty or one of them is left out."""
        self.require(bool(inputs), "takes at least one input")
        self.require(all(x is not None for x in inputs), "none of its inputs may be left out")

    def same_dtype(self, *inputs: Node | None) -> str:
        """The one dtype of the inputs given; fails where they differ."""
        dtypes = list(dict.fromkeys(x.dtype for x in inputs if x is not None))
        if len(dtypes) > 1:
            self.fail(f"its inputs must be of one type, not {dtypes}")
        return dtypes[0]

    def floating(self, *inputs: Node | None) -> None:
        """Fail unless the inputs given are floats."""
        for x in inputs:
            if x is not None and x.dtype not in FLOATS:
                self.fail(f"expected a float input, not {x.dtype}")


_REQUIRED = object()
REQUIRED: Any = _REQUIRED
"""As a default: the attribute must be there."""

ImportFunction = Callable[..., Any]
TENSOR = TensorProto


def _interval(minimum: int | None, maximum: int | None) -> str:
    if maximum is None:
        return f"at least {minimum}"
    return f"at most {maximum}" if minimum is None else f"{minimum} to {maximum}"
