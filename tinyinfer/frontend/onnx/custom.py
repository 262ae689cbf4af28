"""Operators that users bring: registries of functions, for the process or for one session.

A function gets the node's context (or, on the host, its attributes) and one value for each ONNX input, and
gives the outputs; what it makes of nodes is compiled, fused and differentiated like any operator's.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto

from tinyinfer.errors import Fail, InvalidArgument, TinyInferError
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import (
    LAST_OPSET,
    OP_TABLE,
    ROUNDED,
    OpEntry,
    Tolerance,
    canonical_domain,
    input_count,
)
from tinyinfer.frontend.onnx.values import Absent, HostCall, HostValue, SequenceValue, Value
from tinyinfer.ir.node import Node

Function = Callable[..., Any]


class CustomOps:
    """A registry of operators by domain, name and range of opsets. Safe to use from several threads."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str], list[OpEntry]] = {}
        self._lock = threading.Lock()

    def op(
        self,
        domain: str,
        name: str,
        since: int = 1,
        until: int = LAST_OPSET,
        *,
        host: bool = False,
        pure: bool = True,
        tolerance: Tolerance = ROUNDED,
    ) -> Callable[[Function], Function]:
        """Decorator that registers a function for an operator in opsets `since` to `until` of its domain.

        Without `host`: `function(context, *nodes)` builds nodes with `tinyinfer.ir.build` and returns one, or
        a tuple for several outputs. `host=True`: `function(attributes, *arrays)` computes with numpy while
        the model runs and returns an array, or a tuple for several outputs; shapes may depend on the values,
        strings are arrays of objects, sequences lists, maps dicts. `pure=False` says that it must be called
        in every run, also where its inputs are constants.

        Inputs that are left out are None. InvalidArgument where another function has the operator.
        """
        domain = canonical_domain(str(domain))
        if not name or not domain or not 1 <= since <= until:
            raise InvalidArgument(
                f"custom operator {domain}.{name}: a name, and opsets from 1 on, are needed"
            )

        def register(function: Function) -> Function:
            if not callable(function):
                raise InvalidArgument(f"custom operator {domain}.{name}: {function!r} is no function")
            made = _host(function, pure) if host else _nodes(function)
            doc = (inspect.getdoc(function) or "").split("\n")[0]
            entry = OpEntry(name, domain, since, until, made, tolerance, doc, input_count(function), host)
            with self._lock:
                for other in (*self._table.get((domain, name), ()), *OP_TABLE.get((domain, name), ())):
                    if _overlap(other, entry):
                        raise InvalidArgument(
                            f"custom operator {domain}.{name}: opsets {_range(other)} have a function already"
                        )
                self._table.setdefault((domain, name), []).append(entry)
            return function

        return register

    def unregister(self, domain: str, name: str) -> None:
        """Forget an operator in all its opsets; models that were imported keep it. InvalidArgument where
        there is none.
        """
        with self._lock:
            if self._table.pop((canonical_domain(domain), name), None) is None:
                raise InvalidArgument(f"custom operator {domain}.{name}: it is not registered")

    def clear(self) -> None:
        """Forget all operators."""
        with self._lock:
            self._table.clear()

    def find(self, domain: str, name: str, opset: int) -> OpEntry | None:
        """The entry for an operator at this opset of its domain, or None."""
        with self._lock:
            entries = list(self._table.get((canonical_domain(domain), name), ()))
        return next((e for e in entries if e.since <= opset <= e.until), None)

    def overlaps(self, entry: OpEntry) -> bool:
        """Whether an operator of this registry shares its name and an opset with `entry`."""
        with self._lock:
            entries = list(self._table.get((entry.domain, entry.name), ()))
        return any(_overlap(e, entry) for e in entries)

    def entries(self) -> list[OpEntry]:
        """All entries, in the order of their registration."""
        with self._lock:
            return [entry for entries in self._table.values() for entry in entries]

    def __len__(self) -> int:
        return len(self.entries())


PROCESS_OPS = CustomOps()
"""The registry of the process, which every model sees after the registries of its session."""


def custom_op(
    domain: str,
    name: str,
    since: int = 1,
    until: int = LAST_OPSET,
    *,
    host: bool = False,
    pure: bool = True,
    tolerance: Tolerance = ROUNDED,
) -> Callable[[Function], Function]:
    """`CustomOps.op` in the registry of the process."""
    return PROCESS_OPS.op(domain, name, since, until, host=host, pure=pure, tolerance=tolerance)


def unregister_custom_op(domain: str, name: str) -> None:
    """`CustomOps.unregister` in the registry of the process."""
    PROCESS_OPS.unregister(domain, name)


def _overlap(a: OpEntry, b: OpEntry) -> bool:
    return a.since <= b.until and b.since <= a.until


def _range(entry: OpEntry) -> str:
    return f"{entry.since} to {'any' if entry.until == LAST_OPSET else entry.until}"


def _called(context: NodeContext, function: Function, *arguments: Any) -> Any:
    """The function's results; what it raises names the node and the operator."""
    try:
        return function(*arguments)
    except TinyInferError:
        raise
    except Exception as error:  # whatever users' code may raise
        raise Fail(
            f"{context.label}: the function of the custom operator {context.domain}.{context.op_type} raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _nodes(function: Function) -> Function:
    @functools.wraps(function)
    def build(context: NodeContext, *inputs: Node | None) -> Any:
        made = _called(context, function, context, *inputs)
        results = made if isinstance(made, (tuple, list)) else (made,)
        for result in results:
            kinds = (Node, HostValue, SequenceValue, Absent)
            if not (result is None or isinstance(result, (*kinds, HostCall))):
                raise Fail(
                    f"{context.label}: the function of the custom operator {context.domain}."
                    f"{context.op_type} must return nodes, not a {type(result).__name__}"
                )
        if isinstance(made, HostCall):
            return made
        return tuple(results)

    return build


def _host(function: Function, pure: bool) -> Function:
    @functools.wraps(function)
    def call(context: NodeContext, *inputs: Value | None) -> HostCall:
        attributes = {a.name: _plain(context, a) for a in context.attributes}
        outputs = context.outputs

        def run(*arguments: Any) -> tuple[Any, ...]:
            made = _called(context, function, dict(attributes), *arguments)
            results = made if isinstance(made, tuple) else (made,)
            if len(results) < outputs:
                raise Fail(
                    f"{context.label}: the function of the custom operator {context.domain}."
                    f"{context.op_type} gave {len(results)} outputs of {outputs}"
                )
            return tuple(_value(context, r) for r in results[:outputs])

        return HostCall(run, tuple(inputs), outputs, fresh=not pure)

    return call


def _value(context: NodeContext, result: Any) -> Any:
    """A result as values of the run: arrays, lists of such (sequences), dicts (maps), None (no element)."""
    made: Any
    if result is None or isinstance(result, (np.ndarray, dict)):
        made = result
    elif isinstance(result, list):
        made = [_value(context, element) for element in result]
    elif isinstance(result, str):
        made = np.array(result, object)
    elif isinstance(result, (bool, int, float, complex, np.generic)):
        made = np.asarray(result)
    else:
        raise Fail(
            f"{context.label}: the function of the custom operator {context.domain}.{context.op_type} must "
            f"return arrays, not a {type(result).__name__}"
        )
    return made.astype(object) if isinstance(made, np.ndarray) and made.dtype.kind in "SU" else made


def _plain(context: NodeContext, attribute: AttributeProto) -> Any:
    """An attribute in Python's types: strings as str (bytes where they are no UTF-8), tensors as arrays."""
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        return context.value_tensor(attribute.name)
    if kind == AttributeProto.SPARSE_TENSOR:
        return context.sparse_tensor(attribute.name).array
    if kind == AttributeProto.STRING:
        return _text(attribute.s)
    if kind == AttributeProto.STRINGS:
        return [_text(s) for s in attribute.strings]
    if kind == AttributeProto.INT:
        return int(attribute.i)
    if kind == AttributeProto.FLOAT:
        return float(attribute.f)
    if kind == AttributeProto.INTS:
        return [int(i) for i in attribute.ints]
    if kind == AttributeProto.FLOATS:
        return [float(f) for f in attribute.floats]
    context.unsupported(
        f"the attribute '{attribute.name}' is of type {AttributeProto.AttributeType.Name(kind)}, which no "
        "function on the host can be given"
    )


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value
