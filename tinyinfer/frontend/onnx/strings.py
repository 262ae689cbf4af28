"""Movement of strings: the op's own rule, applied to numbers that stand for the strings.

The strings of all inputs are numbered in sorted order ("" is 0), the rule makes a graph over these numbers,
and the oracle evaluates it when the model runs. So whatever moves or compares numbers does the same with
strings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tinyinfer.frontend.onnx.op_table import OpEntry
from tinyinfer.frontend.onnx.values import HostCall, HostValue, Value
from tinyinfer.ir import build
from tinyinfer.ir.node import Node
from tinyinfer.ir.oracle import evaluate

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.context import NodeContext

_CODE = "int64"


def on_strings(entry: OpEntry, context: NodeContext, inputs: list[Value | None]) -> HostCall:
    """The host call that applies an op to tensors of strings; fails where ONNX has no such op."""
    letter, outputs = _typing(context, inputs)
    named: list[Node | None] = []
    for number, value in enumerate(inputs):
        if isinstance(value, HostValue):
            named.append(build.input_node(f"{context.name}/{number}", value.shape, _CODE))
        elif isinstance(value, Node) and context.known(value) is None:
            named.append(build.input_node(f"{context.name}/{number}", value.shape, value.dtype))
        else:
            named.append(value if isinstance(value, Node) else None)
    made = entry.function(context, *named)
    results = [r for r in (made if isinstance(made, (tuple, list)) else [made])][: context.outputs]
    if any(not isinstance(r, Node) for r in results):
        context.unsupported("its result is no tensor, which strings do not allow")
    nodes: list[Node] = [r for r in results if isinstance(r, Node)]
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
        return tuple(names[v] if text else v for v, text in zip(values, texts))

    return HostCall(run, tuple(inputs), len(nodes))


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
