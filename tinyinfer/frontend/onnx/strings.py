"""Movement of strings: the op's own rule, applied to numbers that stand for the strings.

The strings of all inputs are numbered in sorted order ("" is 0), the rule makes a graph over these numbers,
and the oracle evaluates it when the model runs. So whatever moves or compares numbers does the same with
strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tinyinfer.frontend.onnx.op_table import OpEntry
from tinyinfer.frontend.onnx.values import HostCall, HostValue, Value
from tinyinfer.ir import build
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.rewrite import rebuilt

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.context import NodeContext

_CODE = "int64"


def on_strings(entry: OpEntry, context: NodeContext, inputs: list[Value | None]) -> HostCall:
    """The host call that applies an op to tensors of strings; fails where ONNX has no such op."""
    letter, outputs = _typing(context, inputs)
    given: list[Node | None] = []
    fed: dict[int, Node] = {}
    for number, value in enumerate(inputs):
        if isinstance(value, HostValue):
            given.append(build.input_node(f"{context.name}/{number}", value.shape, _CODE))
        elif isinstance(value, Node):
            given.append(value)
            if context.known(value) is None:
                fed[id(value)] = build.input_node(f"{context.name}/{number}", value.shape, value.dtype)
        else:
            given.append(None)
    made = entry.function(context, *given)
    results = [r for r in (made if isinstance(made, (tuple, list)) else [made])][: context.outputs]
    if any(not isinstance(r, Node) for r in results):
        context.unsupported("its result is no tensor, which strings do not allow")
    most = context.importer.limits.max_text
    if any(r.size > most for r in results if isinstance(r, Node)):
        context.fail(f"its result has more strings than the limit max_text = {most} allows")
    nodes = _over_feeds([r for r in results if isinstance(r, Node)], fed)
    texts = [kind == letter for kind in outputs[: len(nodes)]]

    def run(*arguments: Any) -> tuple[Any, ...]:
        strings = [np.asarray(a, object) for a, x in zip(arguments, inputs) if isinstance(x, HostValue)]
        table = sorted({"", *(s for a in strings for s in a.reshape(-1))})
        codes = {s: i for i, s in enumerate(table)}
        feeds = {}
        for number, (argument, value) in enumerate(zip(arguments, inputs)):
            if isinstance(value, HostValue):
                flat = [codes[s] for s in np.asarray(argument, object).reshape(-1)]
                argument = np.array(flat, np.int64).reshape(value.shape)
            if argument is not None:
                feeds[f"{context.name}/{number}"] = argument
        names = np.array(table, object)
        values = evaluate(nodes, feeds)
        return tuple(
            np.array(names[v], object).reshape(v.shape) if text else v for v, text in zip(values, texts)
        )

    return HostCall(run, tuple(inputs), len(nodes))


def _over_feeds(results: list[Node], fed: Mapping[int, Node]) -> list[Node]:
    """The results over what the host function is fed, in place of the values of the graph."""
    memo: dict[int, Node] = {}
    for current in topological_order(results):
        inputs = tuple(memo[id(x)] for x in current.inputs)
        memo[id(current)] = fed.get(id(current)) or rebuilt(current, inputs)
    return [memo[id(r)] for r in results]


def _typing(context: NodeContext, inputs: list[Value | None]) -> tuple[str, list[str]]:
    """The type parameter that is string here, and those of the outputs, from ONNX's schema of the op."""
    domain = "" if context.domain == "ai.onnx" else context.domain
    try:
        schema = onnx.defs.get_schema(context.op_type, context.opset, domain)
    except onnx.defs.SchemaError:
        context.fail("does not take strings")
    formal = list(schema.inputs)
    last = formal[-1] if formal else None
    letters = set()
    for number, value in enumerate(inputs):
        if isinstance(value, HostValue):
            found = formal[number] if number < len(formal) else last
            letters.add(found.type_str if found is not None else "")
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    if len(letters) != 1 or "tensor(string)" not in allowed.get(next(iter(letters)), ()):
        context.fail("does not take strings")
    kinds = [o.type_str for o in schema.outputs]
    kinds += kinds[-1:] * context.outputs
    return next(iter(letters)), kinds
