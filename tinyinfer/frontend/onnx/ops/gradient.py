"""ai.onnx.preview.training Gradient: derivatives of one value of the graph by others."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.errors import NeedsHost
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.scope import Frame, Scope, reads
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.rewrite import transform
from tinyinfer.training.gradients import gradients


@onnx_op("Gradient", domain="ai.onnx.preview.training", tolerance=ACCUMULATED)
def gradient(ctx: NodeContext, *inputs: Node) -> list[Node]:
    """The gradient of the sum of `y` by each of `xs`, where `xs` and then `zs` have the values of the inputs.

    The part of the graph between them is imported again over variables of its own, since `xs` may be values
    in its middle, which the graph at hand does not keep apart, and since the inputs may be other values.
    """
    ctx.all_given(inputs)
    sources = ctx.strings("xs", REQUIRED)
    names = [*sources, *ctx.strings("zs", [])]
    target = ctx.string("y", REQUIRED)
    ctx.require(len(set(names)) == len(names), f"'xs' and 'zs' name a value twice: {names}")
    ctx.require(len(names) == len(inputs), f"{len(inputs)} inputs for {len(names)} names in 'xs' and 'zs'")
    ctx.require(ctx.outputs <= len(sources), f"{ctx.outputs} outputs for {len(sources)} names in 'xs'")
    ctx.floating(*inputs[: len(sources)])
    if ctx.scope.prefix:
        ctx.unsupported("Gradient inside of functions and branches is not supported")
    variables = [
        build.input_node(f"{ctx.name}: variable {i}", x.shape, x.dtype) for i, x in enumerate(inputs)
    ]
    scope = Scope(dict(zip(names, variables)), outer=ctx.scope, opsets=ctx.scope.opsets)
    scope.depth = ctx.scope.depth + 1
    if scope.depth > ctx.importer.limits.max_depth:
        ctx.fail("gradients of gradients are nested too deep")
    _import_again(ctx, _nodes_between(ctx, names, target), scope)
    y = scope.find(target)
    ctx.require(isinstance(y, Node), f"the graph makes no tensor '{target}'")
    assert isinstance(y, Node)
    ctx.floating(y)
    found = gradients([y], variables[: len(sources)], [build.full(1, y.shape, y.dtype)])
    graph = Graph({}, {str(i): g for i, g in enumerate(found)})
    values = {id(v): x for v, x in zip(variables, inputs)}
    bound = transform(graph, graph.nodes(), lambda old, current: values.get(id(old), current))
    return list(bound.outputs.values())


def _nodes_between(ctx: NodeContext, names: Sequence[str], target: str) -> list[NodeProto]:
    """The nodes that make `target` out of `names`, in order."""
    nodes = ctx.importer.model.nodes
    varying = set(names)
    forward = []
    for node in nodes:
        if varying & reads(node):
            forward.append(node)
            varying |= set(node.output) - set(names)
    wanted, chosen = {target}, []
    for node in reversed(forward):
        if wanted & (set(node.output) - set(names)):
            chosen.append(node)
            wanted |= reads(node)
    return chosen[::-1]


def _import_again(ctx: NodeContext, nodes: Sequence[NodeProto], scope: Scope) -> None:
    """Import `nodes` into `scope`; what the host computes has no gradient."""
    importer = ctx.importer
    importer.nested += 1
    try:
        pending = importer.advance([Frame(nodes, scope, what=f"graph that {ctx.label} differentiates")])
    finally:
        importer.nested -= 1
    if pending is not None:
        raise NeedsHost(f"{pending.context.label}: its results are computed by the host")
