"""If: the branch that a constant condition chooses, or both with a choice between their results."""

from __future__ import annotations

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import InvalidGraph, NeedsValue
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.ir import build
from tinyinfer.ir.node import Node, topological_order


@onnx_op("If", tolerance=EXACT)
def if_(ctx: NodeContext, condition: Node) -> list[Node]:
    """The outputs of one branch. A condition that is fed computes both, which nodes without effects allow."""
    ctx.require(
        condition.dtype == "bool" and condition.size == 1,
        f"the condition must be one bool, not {condition.dtype} of shape {list(condition.shape)}",
    )
    known = ctx.known(condition)
    if known is not None:
        name = "then_branch" if bool(known.reshape(-1)[0]) else "else_branch"
        return ctx.importer.branch(ctx, ctx.graph(name), ctx.scope.opsets)
    inputs = [n.attrs for n in topological_order([condition]) if n.op == "INPUT"]
    try:
        then, other = (
            ctx.importer.branch(ctx, ctx.graph(name), ctx.scope.opsets)
            for name in ("then_branch", "else_branch")
        )
    except InvalidGraph as error:
        # a branch that is never taken with these shapes need not be right for them
        raise NeedsValue(f"{error}; whether it runs depends on the graph inputs {inputs}", inputs) from error
    ctx.require(len(then) == len(other), f"its branches have {len(then)} and {len(other)} outputs")
    results = []
    for a, b in zip(then, other):
        ctx.same_dtype(a, b)
        if a.shape != b.shape:
            raise NeedsValue(
                f"{ctx.label}: its branches give shapes {list(a.shape)} and {list(b.shape)}, and which one "
                f"depends on the graph inputs {inputs}",
                inputs,
            )
        results.append(build.apply("WHERE", build.reshape(condition, ()), a, b))
    return results
