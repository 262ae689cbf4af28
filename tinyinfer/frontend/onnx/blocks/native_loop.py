"""Loops of a model as loops in native code: every step is the same kernels over values of fixed shape.

Source: ONNX Loop (opsets 1, 11, 13 and later differ in types and in what shapes carried values may take).
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import NeedsValue, NotSupported
from tinyinfer.frontend.onnx.tensors import element_name
from tinyinfer.ir import build
from tinyinfer.ir.loop import BodyResults, LoopValues, changes_in_a_loop, loop
from tinyinfer.ir.node import UNBOUNDED, Node, topological_order
from tinyinfer.ir.work import work_of

LARGEST_WORK = 1 << 22
"""Elements that one iteration may compute: a loop in native code runs on one thread, the host's on all."""


def loop_in_native_code(
    ctx: NodeContext, trip_count: Node | None, condition: Node | None, *carried: Node | None
) -> LoopValues:
    """What a Loop leaves, as a LOOP node of the IR.

    It may run a constant or a fed number of times and compute its condition; if it stacks values, the number
    must be a constant and the condition hold always. Raises NotSupported where it is otherwise, where carried
    shapes change, or where the body cannot be in the IR.
    """
    graph = ctx.graph("body")
    initial = [x for x in carried if x is not None]
    ctx.require(len(initial) == len(carried), "every value that it carries must be given")
    stacked = len(graph.output) - 1 - len(initial)
    ctx.require(stacked >= 0, f"its body makes {len(graph.output)} values, and {len(initial)} are carried")
    taken = 2 + len(initial)
    ctx.require(len(graph.input) >= taken, f"its body takes {len(graph.input)} values, not {taken}")
    count = None if trip_count is None else one_of(ctx, trip_count, "int64", "trip count")
    enter = None if condition is None else one_of(ctx, condition, "bool", "condition")
    steps, known = UNBOUNDED, None if count is None else ctx.known(count)
    if known is not None:
        steps, count = max(0, int(known)), None
    entered = True if enter is None else ctx.known(enter)
    if entered is not None:
        steps, enter = steps if entered else 0, None
    goes_on: list[bool | None] = []

    def body(number: Node, values: list[Node], rows: list[Node]) -> BodyResults:
        going, new, made = iteration(ctx, graph, number, values)
        found = ctx.known(going)
        goes_on.append(None if found is None else bool(found))
        return BodyResults(new, made, going if found is None else None)

    made = loop(body, initial, steps, count=count, condition=enter)
    if goes_on[-1] is False and steps > 1:
        made = loop(body, initial, 1, count=count, condition=enter)
        steps = 1
    if steps == UNBOUNDED and count is None and goes_on[-1] is not None:
        ctx.unsupported("nothing ends it")
    if stacked and steps and (count is not None or enter is not None or goes_on[-1] is None):
        ctx.unsupported("how many rows it stacks is only known when it has run")
    return made


def iteration(
    ctx: NodeContext, graph: GraphProto, number: Node, values: Sequence[Node]
) -> tuple[Node, list[Node], list[Node]]:
    """One iteration of a Loop's body: whether to go on, the carried values after it, the rows that it stacks.
    """
    # an iteration only runs where the condition holds
    bound = [_shaped(graph, 0, number), _shaped(graph, 1, build.scalar(True, "bool")), *values]
    results = import_body(ctx, graph, bound)
    new = results[1 : 1 + len(values)]
    for old, value, declared in zip(values, new, graph.output[1:]):
        ctx.require(
            old.dtype == value.dtype,
            f"the body makes '{declared.name}' {value.dtype}, but it is carried as {old.dtype}",
        )
        if old.shape != value.shape:
            ctx.unsupported(
                f"the carried '{declared.name}' changes from shape {list(old.shape)} to {list(value.shape)}"
            )
    return one_of(ctx, results[0], "bool", "condition of its body"), new, results[1 + len(values) :]


def import_body(ctx: NodeContext, graph: GraphProto, inputs: Sequence[Node]) -> list[Node]:
    """The outputs of a body over its inputs. Raises NotSupported where a value that changes from one
    iteration to the next would decide a shape, for values that are no tensors, and for large bodies."""
    for declared, value in zip(graph.input, inputs):
        kind = declared.type.tensor_type.elem_type
        ctx.require(
            not kind or element_name(kind, f"'{declared.name}'") == value.dtype,
            f"the body declares its input '{declared.name}' otherwise than {value.dtype}, which it gets",
        )
    try:
        results = ctx.importer.subgraph(ctx, graph, inputs)
    except NeedsValue as error:
        if error.node is None or changes_in_a_loop(error.node):
            raise NotSupported(f"{error}; the value changes from one iteration to the next") from error
        raise
    nodes: list[Node] = []
    for found in results:
        if not isinstance(found, Node):
            ctx.unsupported("its body gives what is no tensor of numbers")
        nodes.append(found)
    if _work(nodes, inputs) > LARGEST_WORK:
        ctx.unsupported("an iteration has more work than one thread should do")
    return nodes


def _work(results: Sequence[Node], inputs: Sequence[Node]) -> int:
    """Elements that an iteration computes, sums by their terms; what does not depend on its inputs is not
    computed in it."""
    varies = set(inputs)
    computed: list[Node] = []
    for current in topological_order(results):
        if any(x in varies for x in current.inputs):
            varies.add(current)
            # a loop inside is measured by itself
            if current.op != "LOOP":
                computed.append(current)
    return work_of(computed)


def one_of(ctx: NodeContext, x: Node, dtype: str, what: str) -> Node:
    """A tensor of one element as a scalar."""
    ctx.require(
        x.dtype == dtype and x.size == 1, f"the {what} must be one {dtype}, not {x.dtype} of {list(x.shape)}"
    )
    return build.reshape(x, ())


def _shaped(graph: GraphProto, position: int, x: Node) -> Node:
    """A scalar in the shape that the body declares for its input: some declare one dimension."""
    declared = graph.input[position].type.tensor_type
    rank = len(declared.shape.dim) if declared.HasField("shape") else 0
    return build.reshape(x, [1] * rank)
