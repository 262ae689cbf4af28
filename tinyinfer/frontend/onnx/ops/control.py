"""If: the branch that a condition chooses; small branches are computed both, with a choice between
results.
"""

from __future__ import annotations

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import InvalidGraph, NeedsHost, NeedsValue
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.scope import Frame
from tinyinfer.frontend.onnx.values import Value, nodes_of
from tinyinfer.ir import build
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.work import work_of

SMALL_BRANCHES = 4096
"""Elements that two branches may compute together to be computed both: less than a cut of the model costs."""


@onnx_op("If", tolerance=EXACT, values=True)
def if_(ctx: NodeContext, condition: Node) -> Frame | list[Node]:
    """The outputs of one branch. Where the condition depends on data, it is known before the branch runs."""
    ctx.require(
        isinstance(condition, Node) and condition.dtype == "bool" and condition.size == 1,
        "the condition must be one bool",
    )
    known = ctx.known(condition)
    if known is not None:
        name = "then_branch" if bool(known.reshape(-1)[0]) else "else_branch"
        return ctx.importer.enter(ctx, ctx.graph(name))
    both = _both(ctx, condition)
    if both is None:
        inputs = [n.attrs for n in topological_order([condition]) if n.op == "INPUT"]
        raise NeedsValue(
            f"{ctx.label}: which branch runs depends on the graph inputs {inputs}", inputs, condition
        )
    return both


def _both(ctx: NodeContext, condition: Node) -> list[Node] | None:
    """The choice between the results of both branches; None where only one of them can or should run."""
    try:
        then, other = (ctx.importer.subgraph(ctx, ctx.graph(n)) for n in ("then_branch", "else_branch"))
    except (InvalidGraph, NeedsValue, NeedsHost):
        # a branch that is never taken with these shapes need not be right for them
        return None
    ctx.require(len(then) == len(other), f"its branches have {len(then)} and {len(other)} outputs")
    pairs = []
    for a, b in zip(then, other):
        if not isinstance(a, Node) or not isinstance(b, Node) or a.shape != b.shape:
            return None
        ctx.same_dtype(a, b)
        pairs.append((a, b))
    if not ctx.importer.nested and _work(ctx, [*then, *other]) > SMALL_BRANCHES:
        return None
    choice = build.reshape(condition, ())
    return [build.apply("WHERE", choice, a, b) for a, b in pairs]


def _work(ctx: NodeContext, results: list[Value]) -> int:
    """Elements computed for `results` beyond what the graph around the node has."""
    outer = {id(n) for s in ctx.scope.chain() for value in s.values.values() for n in nodes_of(value)}
    added: list[Node] = []
    stack = [n for r in results for n in nodes_of(r)]
    seen = set(outer)
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        added.append(current)
        stack.extend(current.inputs)
    return work_of(added)
