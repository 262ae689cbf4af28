"""Operators that draw random numbers.

A node with the attribute `seed` starts from it, so that two sessions draw the same; one without starts from
`tinyinfer.set_seed` and its own name, else from fresh entropy. Every run draws anew, as in onnxruntime: the
host gives each run of a node a new key, from which kernels compute the numbers.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from tinyinfer.frontend.onnx.blocks.random_bits import exponential, normal, uniform
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, TRANSCENDENTAL, Tolerance, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.reduce import drop_axes, position_of_extreme
from tinyinfer.frontend.onnx.scope import Frame, Scope
from tinyinfer.frontend.onnx.values import HostCall
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node
from tinyinfer.runtime.defaults import default_seed

PRIVATE = "tinyinfer.random"
"""The domain of the two nodes that a random op is imported as: Key, and the op with the key as last input."""

KEY = "key of the run"


def _keyed(ctx: NodeContext, inputs: Sequence[Node | None], **key_attributes: Any) -> Frame:
    """The node as a Key, which the host computes, and a node of the private domain that draws from it."""
    names = ["" if x is None else f"input {i}" for i, x in enumerate(inputs)]
    key = helper.make_node("Key", [], [KEY], ctx.name, domain=PRIVATE, **key_attributes)
    key.attribute.extend(a for a in ctx.attributes if a.name == "seed")
    draw = NodeProto(op_type=ctx.op_type, domain=PRIVATE, name=ctx.name, input=[*names, KEY])
    draw.output.extend(f"output {i}" for i in range(ctx.outputs))
    draw.attribute.extend(ctx.attributes)
    scope = Scope(opsets={PRIVATE: ctx.opset}, depth=ctx.scope.depth + 1)
    scope.values.update({name: x for name, x in zip(names, inputs) if x is not None})
    results = tuple((made, name) for made, name in zip(draw.output, ctx.proto.output) if name)
    return Frame([key, draw], scope, results, what=ctx.label)


def random_op(
    name: str, since: int = 1, tolerance: Tolerance = EXACT
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an import function whose last argument is a key of two uint32 that no other run has."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def keyed(ctx: NodeContext, *inputs: Node | None) -> Frame:
            return _keyed(ctx, inputs)

        keyed.__doc__ = function.__doc__
        onnx_op(name, since=since, tolerance=tolerance)(keyed)
        onnx_op(name, since=since, domain=PRIVATE, tolerance=tolerance)(function)
        return function

    return register


@onnx_op("Key", domain=PRIVATE, tolerance=EXACT)
def key_of_the_run(ctx: NodeContext) -> HostCall:
    """A new key of two uint32 in every run; or, with a `shape`, uniform numbers of numpy's generator."""
    shape = ctx.integers("shape", None, minimum=0)
    draws = ctx.importer.model.draws
    if shape is not None:
        seed = ctx.integer("seed", 0) & 0xFFFFFFFF
        ctx.require(math.prod(shape) <= ctx.importer.limits.max_elements, f"{shape} is over the limit")
        state = draws.setdefault(f"{ctx.name}, seed {seed}", np.random.RandomState(seed))
        return HostCall(lambda: (state.uniform(size=tuple(shape)),), (), 1, fresh=True)
    if ctx.name not in draws:
        draws[ctx.name] = _entropy(ctx), itertools.count()
    entropy, runs = draws[ctx.name]

    def key() -> tuple[np.ndarray]:
        return (np.random.SeedSequence([*entropy, next(runs)]).generate_state(2).astype(np.uint32),)

    return HostCall(key, (), 1, fresh=True)


def _entropy(ctx: NodeContext) -> list[int]:
    if ctx.has("seed"):
        return [int(np.float32(ctx.number("seed")).view(np.uint32))]
    common = default_seed()
    chosen = np.random.SeedSequence().entropy if common is None else common & ((1 << 64) - 1)
    assert isinstance(chosen, int)
    return [chosen, zlib.crc32(ctx.name.encode())]


def _float_type(ctx: NodeContext, default: str) -> str:
    dtype = ctx.dtype("dtype", default) or default
    ctx.require(dtype.startswith(("float", "bfloat")), f"the attribute 'dtype' must be a float, not {dtype}")
    return dtype


def _shape(ctx: NodeContext) -> list[int]:
    return ctx.integers("shape", REQUIRED, minimum=0)


def _normal(ctx: NodeContext, shape: Sequence[int], dtype: str, key: Node) -> Node:
    return normal(key, shape, dtype, ctx.number("mean", 0.0), ctx.number("scale", 1.0))


def _uniform(ctx: NodeContext, shape: Sequence[int], dtype: str, key: Node) -> Node:
    low, high = ctx.number("low", 0.0), ctx.number("high", 1.0)
    ctx.require(low <= high, f"'low' {low} is above 'high' {high}")
    return uniform(key, shape, dtype, low, high)


@random_op("RandomNormal", tolerance=TRANSCENDENTAL)
def random_normal(ctx: NodeContext, key: Node) -> Node:
    """Normal numbers of `mean` and deviation `scale`, in a shape."""
    return _normal(ctx, _shape(ctx), _float_type(ctx, "float32"), key)


@random_op("RandomNormalLike", tolerance=TRANSCENDENTAL)
def random_normal_like(ctx: NodeContext, x: Node, key: Node) -> Node:
    """Normal numbers of `mean` and deviation `scale`, in the shape of the input."""
    return _normal(ctx, x.shape, _float_type(ctx, x.dtype), key)


@random_op("RandomUniform")
def random_uniform(ctx: NodeContext, key: Node) -> Node:
    """Uniform numbers from `low` up to but without `high`, in a shape."""
    return _uniform(ctx, _shape(ctx), _float_type(ctx, "float32"), key)


@random_op("RandomUniformLike")
def random_uniform_like(ctx: NodeContext, x: Node, key: Node) -> Node:
    """Uniform numbers from `low` up to but without `high`, in the shape of the input."""
    return _uniform(ctx, x.shape, _float_type(ctx, x.dtype), key)


@random_op("Bernoulli", since=15)
def bernoulli(ctx: NodeContext, x: Node, key: Node) -> Node:
    """1 with the probability that the input holds, else 0."""
    ctx.floating(x)
    wide = x if x.dtype == "float64" else build.cast(x, "float32")
    drawn = uniform(key, x.shape, wide.dtype)
    return build.cast(elementwise("CMPLT", drawn, wide), ctx.dtype("dtype", x.dtype) or x.dtype)


@random_op("Multinomial", since=7)
def multinomial(ctx: NodeContext, x: Node, key: Node) -> Node:
    """Classes drawn by unnormalised log probabilities [batch, classes], each `sample_size` times.

    Every class waits for an exponential time of its probability as rate; the first to arrive is drawn.
    """
    ctx.floating(x)
    ctx.require(len(x.shape) == 2 and x.shape[1] > 0, f"the input must be [N, classes], not {list(x.shape)}")
    count = ctx.integer("sample_size", 1, minimum=1)
    dtype = ctx.dtype("dtype", "int32") or "int32"
    ctx.require(dtype in ("int32", "int64"), f"the attribute 'dtype' must be int32 or int64, not {dtype}")
    shape = (x.shape[0], count, x.shape[1])
    scores = build.cast(x, "float64")
    largest = build.reduce("MAX", scores, [1], keepdims=True)
    rate = elementwise("EXP", elementwise("SUB", scores, build.expand(largest, scores.shape)))
    rate = build.expand(build.reshape(rate, [shape[0], 1, shape[2]]), shape)
    # the largest rate over time is the smallest time over rate, and is 0 for an impossible class
    race = elementwise("DIV", rate, exponential(key, shape))
    return build.cast(drop_axes(position_of_extreme(race, 2, "MAX", last=False), [2]), dtype)


# ---- dropout


@onnx_op("Dropout", until=11, tolerance=EXACT)
def dropout_by_attributes(ctx: NodeContext, x: Node) -> tuple[Node, Node]:
    """The input: inference drops nothing. The mask is all ones.

    `is_test` of opsets 1 to 6 is not read: its default, 0, stands in models that were exported for inference.
    """
    return x, build.full(1, x.shape, "bool" if ctx.opset >= 10 else x.dtype)


@onnx_op("Dropout", since=12, tolerance=EXACT)
def dropout(
    ctx: NodeContext, x: Node, ratio: Node | None = None, training: Node | None = None
) -> tuple[Node, Node] | Frame:
    """The input, or in training with a share `ratio` of its elements 0 and the others scaled up to match.

    A `seed` that the model names draws what ONNX's reference implementation draws (numpy's Mersenne twister).
    """
    ctx.floating(x)
    if training is None:
        return x, build.full(True, x.shape, "bool")
    ctx.require(training.size == 1 and training.dtype == "bool", "'training_mode' must be one bool")
    switch = ctx.known(training)
    ratio = build.scalar(0.5, "float32") if ratio is None else ratio
    ctx.require(ratio.size == 1, "'ratio' must be one number")
    ctx.floating(ratio)
    share = ctx.known(ratio)
    ctx.require(share is None or bool((0 <= share) & (share < 1)), f"'ratio' must be in [0, 1), not {share}")
    if (switch is not None and not switch.any()) or (share is not None and not share.any()):
        return x, build.full(True, x.shape, "bool")
    if ctx.has("seed"):
        return _keyed(ctx, [x, ratio, training], shape=list(x.shape))
    return _keyed(ctx, [x, ratio, training])


@onnx_op("Dropout", domain=PRIVATE, tolerance=EXACT)
def dropped(ctx: NodeContext, x: Node, ratio: Node, training: Node, key: Node) -> tuple[Node, Node]:
    """Dropout in training; the key may hold the uniform numbers themselves."""
    numbers = key if key.dtype == "float64" else uniform(key, x.shape, "float64")
    drop = build.expand(build.cast(build.reshape(ratio, ()), "float64"), x.shape)
    drop = elementwise("WHERE", build.expand(build.reshape(training, ()), x.shape), drop, like(0, drop))
    kept = elementwise("CMPLE", drop, numbers)
    scale = build.cast(elementwise("RECIP", elementwise("SUB", like(1, drop), drop)), x.dtype)
    return elementwise("WHERE", kept, elementwise("MUL", x, scale), like(0, x)), kept
