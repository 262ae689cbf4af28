"""The gradient of a loop: a loop that runs against it.

The loop runs once more to keep what it carried into each iteration; the loop back scans that from the last
iteration to the first, differentiates the body there, and sums what captured values get.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop, replace_nodes
from tinyinfer.ir.node import LoopBody, Node


def gradients_of_loop(made: Node, flowing: Mapping[int, Node]) -> list[Node | None]:
    """The gradient by each input of a LOOP, given those by its outputs by number.

    Raises NotImplemented for a loop whose number of iterations is not fixed.
    """
    from tinyinfer.training.gradients import gradients, is_float

    body: LoopBody = made.attrs
    if body.counted or body.conditional:
        raise NotSupported("a loop that data ends has no gradient")
    steps, count = body.steps, body.carried
    first = count + len(body.scanned)
    initial, scanned = made.inputs[:count], made.inputs[count:first]
    inner = body.inputs[1:]
    smooth = [i for i, x in enumerate(inner) if is_float(x.dtype)]
    carried = [i for i in smooth if i < count]
    captured = [i for i in smooth if i >= first]
    rows = [i for i in smooth if count <= i < first]
    results = [i for i, x in enumerate(body.outputs) if is_float(x.dtype)]
    stacked = [i for i in results if i >= count]

    def zero(x: Node) -> Node:
        return build.full(0, x.shape, x.dtype)

    def again(number: Node, values: list[Node], given: list[Node]) -> BodyResults:
        bound = [number, *values, *given, *made.inputs[first:]]
        replaced = {id(x): new for x, new in zip(body.inputs, bound, strict=True)}
        return BodyResults(replace_nodes(body.outputs[:count], replaced), values)

    before = loop(again, initial, steps, list(zip(scanned, body.scanned))).stacked
    # the derivative of one iteration, over the body's own inputs and what flows into its outputs
    seeds = [build.input_node(f"seed {i}", body.outputs[i].shape, body.outputs[i].dtype) for i in results]
    parts = gradients([body.outputs[i] for i in results], [inner[i] for i in smooth], seeds)
    place = {i: number for number, i in enumerate(smooth)}

    def back(number: Node, values: list[Node], given: list[Node]) -> BodyResults:
        last = elementwise("SUB", build.scalar(steps - 1, "int64"), number)
        bound = [last, *given[:first], *made.inputs[first:]]
        arriving = dict(zip((*carried, *stacked), (*values[: len(carried)], *given[first:])))
        replaced = {id(x): new for x, new in zip(body.inputs, bound, strict=True)}
        replaced |= {id(seed): arriving[i] for i, seed in zip(results, seeds)}
        found = replace_nodes(parts, replaced)
        sums = [
            elementwise("ADD", total, found[place[i]]) for i, total in zip(captured, values[len(carried) :])
        ]
        return BodyResults([*(found[place[i]] for i in carried), *sums], [found[place[i]] for i in rows])

    start = [flowing.get(i) or zero(initial[i]) for i in carried]
    start += [zero(made.inputs[i]) for i in captured]
    shapes = {i: (steps, *body.outputs[i].shape) for i in stacked}
    reverse = [(x, True) for x in before]
    reverse += [(x, not last_first) for x, last_first in zip(scanned, body.scanned)]
    for i in stacked:
        gradient = flowing.get(i) or build.full(0, shapes[i], body.outputs[i].dtype)
        reverse.append((gradient, not body.stacked[i - count]))
    made_back = loop(back, start, steps, reverse, lambda number: not body.scanned[rows[number] - count])
    by_input: dict[int, Node] = dict(zip((*carried, *captured), made_back.final))
    by_input |= dict(zip(rows, made_back.stacked))
    return [by_input.get(i) for i in range(len(made.inputs))]
