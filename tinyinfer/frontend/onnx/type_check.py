"""Whether an operator may take narrow or complex numbers, or bools: as its ONNX schema says.

Import functions check what they take among the other types themselves. Most could compute with a float8 or
an int4 just as well, but ONNX gives such nodes no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import onnx

from tinyinfer.frontend.onnx.values import Value
from tinyinfer.ir.dtypes import PLAIN
from tinyinfer.ir.node import Node
from tinyinfer.runtime.signature import tensor_type

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.context import NodeContext


def refuse_foreign_types(ctx: NodeContext, inputs: Sequence[Value | None]) -> None:
    """Fail where an input is narrow, complex or bool, and no version of the operator takes that there."""
    for position, x in enumerate(inputs):
        if not isinstance(x, Node) or (x.dtype in PLAIN and x.dtype != "bool"):
            continue
        allowed = _allowed(ctx.op_type, ctx.domain, position)
        spelling = tensor_type(x.dtype)
        if allowed is not None and spelling not in allowed:
            ctx.fail(f"input {position} is a {spelling}, which the operator does not take")


@cache
def _allowed(op_type: str, domain: str, position: int) -> frozenset[str] | None:
    """The types of an input in the newest version of an operator's schema; None if there is no schema."""
    try:
        schema = onnx.defs.get_schema(op_type, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None
    if not schema.inputs:
        return None
    return frozenset(schema.inputs[min(position, len(schema.inputs) - 1)].types)
