"""ai.onnx.preview.training: steps of optimizers."""

from __future__ import annotations

from collections.abc import Callable

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ROUNDED, TRANSCENDENTAL, Tolerance, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

TRAINING = "ai.onnx.preview.training"

Step = Callable[[NodeContext, Node, Node, tuple[Node, ...]], tuple[Node, ...]]
"""(rate, count, tensors of one parameter: value, gradient, states) to (new value, new states)."""


def _register_optimizer(name: str, step: Step, states: int, tolerance: Tolerance) -> None:
    """An optimizer of any number of parameters: inputs R, T, all values, all gradients, all of each state."""

    def function(ctx: NodeContext, rate: Node, count: Node, *tensors: Node) -> list[Node]:
        ctx.all_given(tensors)
        kinds = 2 + states
        n = len(tensors) // kinds
        ctx.require(
            n > 0 and len(tensors) == kinds * n,
            f"{len(tensors)} tensors do not divide into {kinds} for each parameter",
        )
        ctx.require(rate.size == 1 and count.size == 1, "R and T must be one number each")
        ctx.require(count.dtype == "int64", f"T must be int64, not {count.dtype}")
        ctx.floating(rate)
        columns: list[tuple[Node, ...]] = []
        for i in range(n):
            group = tensors[i::n]
            ctx.same_dtype(*group)
            ctx.floating(group[0])
            ctx.require(
                len({x.shape for x in group}) == 1,
                f"the tensors of one parameter differ in shape: {[list(x.shape) for x in group]}",
            )
            x = group[0]
            spread = [build.expand(build.cast(build.reshape(s, ()), x.dtype), x.shape) for s in (rate, count)]
            columns.append(step(ctx, spread[0], spread[1], group))
        return [column[kind] for kind in range(1 + states) for column in columns]

    function.__doc__ = step.__doc__
    onnx_op(name, domain=TRAINING, tolerance=tolerance)(function)


def _scaled(x: Node, factor: float) -> Node:
    return elementwise("MUL", x, like(factor, x))


def _sum(*terms: Node) -> Node:
    total = terms[0]
    for term in terms[1:]:
        total = elementwise("ADD", total, term)
    return total


def _regularised(ctx: NodeContext, x: Node, gradient: Node, default: float | object) -> Node:
    """The gradient of the loss plus norm_coefficient / 2 · |x|²."""
    coefficient = ctx.number("norm_coefficient", default)
    return gradient if coefficient == 0 else _sum(_scaled(x, coefficient), gradient)


def _adagrad(ctx: NodeContext, rate: Node, count: Node, group: tuple[Node, ...]) -> tuple[Node, Node]:
    """One step of Adagrad: the rate over the root of all squared gradients so far."""
    x, gradient, squares = group
    decay = ctx.number("decay_factor", 0.0)
    rate = elementwise("DIV", rate, _sum(like(1, x), _scaled(count, decay)))
    gradient = _regularised(ctx, x, gradient, 0.0)
    squares = _sum(squares, elementwise("MUL", gradient, gradient))
    root = _sum(elementwise("SQRT", squares), like(ctx.number("epsilon", 1e-6), x))
    return elementwise("SUB", x, elementwise("DIV", elementwise("MUL", rate, gradient), root)), squares


def _adam(ctx: NodeContext, rate: Node, count: Node, group: tuple[Node, ...]) -> tuple[Node, Node, Node]:
    """One step of Adam: running means of gradients and of their squares, corrected for their start."""
    x, gradient, first, second = group
    alpha, beta = ctx.number("alpha", 0.9), ctx.number("beta", 0.999)
    gradient = _regularised(ctx, x, gradient, 0.0)
    first = _sum(_scaled(first, alpha), _scaled(gradient, 1 - alpha))
    second = _sum(_scaled(second, beta), _scaled(elementwise("MUL", gradient, gradient), 1 - beta))
    root = _sum(elementwise("SQRT", second), like(ctx.number("epsilon", 1e-6), x))

    def unseen(factor: float) -> Node:
        # 1 - factor^T in float64: it cancels where T is small
        wide = build.cast(count, "float64")
        power = elementwise("POW", like(factor, wide), wide)
        return elementwise("SUB", like(1, wide), power)

    started = elementwise("CMPLT", like(0, count), count)
    ratio = build.cast(elementwise("DIV", elementwise("SQRT", unseen(beta)), unseen(alpha)), x.dtype)
    rate = elementwise("MUL", rate, elementwise("WHERE", started, ratio, like(1, ratio)))
    moved = elementwise("SUB", x, elementwise("MUL", rate, elementwise("DIV", first, root)))
    return _scaled(moved, 1 - ctx.number("norm_coefficient_post", 0.0)), first, second


def _momentum(ctx: NodeContext, rate: Node, count: Node, group: tuple[Node, ...]) -> tuple[Node, Node]:
    """One step of gradient descent with momentum, standard or Nesterov's."""
    x, gradient, velocity = group
    mode = ctx.string("mode", REQUIRED, ("standard", "nesterov"))
    alpha, beta = ctx.number("alpha", REQUIRED), ctx.number("beta", REQUIRED)
    gradient = _regularised(ctx, x, gradient, REQUIRED)
    started = elementwise("CMPLT", like(0, count), count)
    weight = elementwise("WHERE", started, like(beta, x), like(1, x))  # the first gradient counts in full
    velocity = _sum(_scaled(velocity, alpha), elementwise("MUL", weight, gradient))
    step = velocity if mode == "standard" else _sum(gradient, _scaled(velocity, alpha))
    return elementwise("SUB", x, elementwise("MUL", rate, step)), velocity


_register_optimizer("Adagrad", _adagrad, 1, ROUNDED)
_register_optimizer("Adam", _adam, 2, TRANSCENDENTAL)
_register_optimizer("Momentum", _momentum, 1, ROUNDED)
