"""Losses: negative log likelihood, and cross entropy of a softmax."""

from __future__ import annotations

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.norm import log_softmax
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis


def negative_log_likelihood(ctx: NodeContext, x: Node, target: Node, weight: Node | None) -> Node:
    """-weight[target] · x[n, target, …] with targets [N, …], reduced as the node says.

    Targets of `ignore_index` count nowhere. A mean is over the sum of the weights that count. Targets outside
    of the classes, which ONNX does not define, read 0.
    """
    rank = len(x.shape)
    ctx.require(rank >= 2, f"the input must be [N, C, …], not of shape {list(x.shape)}")
    ctx.require(
        target.shape == (x.shape[0], *x.shape[2:]),
        f"the target of shape {list(target.shape)} does not fit the input of shape {list(x.shape)}",
    )
    ctx.require(
        target.dtype in ("int32", "int64"), f"the target must be int32 or int64, not {target.dtype}"
    )
    ctx.require(
        weight is None or weight.shape == (x.shape[1],),
        f"there must be one weight for each of {x.shape[1]} classes",
    )
    reduction = ctx.string("reduction", "mean", ("none", "sum", "mean"))
    ignored = ctx.integer("ignore_index")
    axes = [index(output_axis(i, d)) for i, d in enumerate(target.shape)]
    chosen_class = index(Slot(0, 0, x.shape[1] - 1))
    picked = build.indexed_view(x, [axes[0], chosen_class, *axes[1:]], target.shape, [target])
    loss = elementwise("NEG", picked)
    counted: Node | None = None
    if weight is not None:
        counted = build.indexed_view(weight, [chosen_class], target.shape, [target])
    if ignored is not None:
        here = elementwise("CMPNE", build.cast(target, "int64"), build.full(ignored, target.shape, "int64"))
        # a choice, since 0 times an infinite loss would not be 0
        loss = elementwise("WHERE", here, loss, like(0, loss))
        counted = elementwise("WHERE", here, counted or like(1, loss), like(0, loss))
    if counted is not None:
        loss = elementwise("MUL", loss, counted)
    if reduction == "none":
        return loss
    total = build.reduce("SUM", loss, range(rank - 1))
    if reduction == "sum":
        return total
    if counted is None:
        return elementwise("DIV", total, like(loss.size, total))
    return elementwise("DIV", total, build.reduce("SUM", counted, range(rank - 1)))


@onnx_op("NegativeLogLikelihoodLoss", since=12, tolerance=ACCUMULATED)
def negative_log_likelihood_loss(
    ctx: NodeContext, x: Node, target: Node, weight: Node | None = None
) -> Node:
    """Minus the log probability [N, C, …] of the class in target [N, …], weighted by class, reduced."""
    ctx.same_dtype(x, weight)
    ctx.floating(x)
    return negative_log_likelihood(ctx, x, target, weight)


@onnx_op("SoftmaxCrossEntropyLoss", since=12, tolerance=ACCUMULATED)
def softmax_cross_entropy_loss(
    ctx: NodeContext, scores: Node, labels: Node, weights: Node | None = None
) -> tuple[Node, Node]:
    """Negative log likelihood of the labels under the softmax of the scores; and the log probabilities."""
    ctx.same_dtype(scores, weights)
    ctx.floating(scores)
    ctx.require(len(scores.shape) >= 2, f"the scores must be [N, C, …], not {list(scores.shape)}")
    log_probability = log_softmax(scores, [1])
    return negative_log_likelihood(ctx, log_probability, labels, weights), log_probability
