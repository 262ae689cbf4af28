"""Linear models and support vector machines: products with constants, then scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.frontend.onnx.blocks import ml_scores
from tinyinfer.frontend.onnx.blocks.ml_scores import DOMAIN, require_numbers
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node
from tinyinfer.ir.oracle import evaluate


def _input_rows(ctx: NodeContext, x: Node) -> Node:
    require_numbers(ctx, x)
    return ml_scores.rows(ctx, x, "float32")


def _floats(ctx: NodeContext, name: str) -> np.ndarray:
    return np.asarray(ctx.numbers(name, None) or [], np.float32)


def _times(x: Node, weights: np.ndarray) -> Node:
    """x [rows, k] times the transpose of weights [n, k]."""
    return build.matmul(x, build.constant(np.ascontiguousarray(weights.T)))


def _linear(ctx: NodeContext, x: Node, outputs: int) -> Node:
    """x · coefficientsᵀ + intercepts: [rows, outputs]."""
    coefficients, intercepts = _floats(ctx, "coefficients"), _floats(ctx, "intercepts")
    wanted = outputs * x.shape[1]
    ctx.require(
        len(coefficients) == wanted,
        f"'coefficients' must hold {wanted} numbers ({outputs} times {x.shape[1]} features), "
        f"not {len(coefficients)}",
    )
    scores = _times(x, coefficients.reshape(outputs, x.shape[1]))
    if len(intercepts) == outputs:
        scores = build.apply("ADD", scores, build.constant(intercepts))
    return scores


@onnx_op("LinearRegressor", domain=DOMAIN, tolerance=ACCUMULATED)
def linear_regressor(ctx: NodeContext, x: Node) -> Node:
    """x · coefficientsᵀ + intercepts, transformed."""
    targets = ctx.integer("targets", 1, minimum=1)
    transform = ml_scores.post_transform(ctx)
    scores = _linear(ctx, _input_rows(ctx, x), targets)
    return _transformed(scores, transform)


def _transformed(scores: Node, transform: str) -> Node:
    """Of one score alone only PROBIT makes anything, as in onnxruntime: the others compare scores."""
    if scores.shape[1] == 1 and transform != "PROBIT":
        return scores
    return ml_scores.transform_scores(scores, transform)


@onnx_op("LinearClassifier", domain=DOMAIN, tolerance=ACCUMULATED)
def linear_classifier(ctx: NodeContext, x: Node) -> Any:
    """The class with the largest score x · coefficientsᵀ + intercepts, and all scores, transformed."""
    x = _input_rows(ctx, x)
    labels = ml_scores.class_labels(ctx, "classlabels_ints")
    transform = ml_scores.post_transform(ctx)
    classes = len(_floats(ctx, "intercepts")) or max(
        len(_floats(ctx, "coefficients")) // max(x.shape[1], 1), 1
    )
    scores = _linear(ctx, x, classes)
    if classes > 1:
        ctx.require(len(labels) >= classes, f"has {len(labels)} labels for {classes} classes")
        result = ml_scores.transform_scores(scores, transform)
        return ml_scores.labelled(ctx, ml_scores.best_class(scores), labels[:classes], result)
    only = ml_scores.column(scores, 0)
    second = build.cast(elementwise("CMPLT", like(0, only), only), "int64")
    if len(labels) == 2:
        result = ml_scores.both_classes(only, transform, probability=True)
        return ml_scores.labelled(ctx, second, labels, result)
    names: Sequence[int] | Sequence[str] = ["0", "1"] if labels and isinstance(labels[0], str) else [0, 1]
    return ml_scores.labelled(ctx, second, names, _transformed(scores, transform))


# ---- support vector machines

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


@dataclass
class Kernel:
    """How a support vector machine compares a row with a support vector."""

    kind: str
    gamma: float
    coefficient: float
    degree: float


def _kernel(ctx: NodeContext) -> Kernel:
    kind = ctx.string("kernel_type", "LINEAR", choices=KERNELS)
    parameters = ctx.numbers("kernel_params", []) or []
    ctx.require(len(parameters) in (0, 3), f"'kernel_params' must hold 3 numbers, not {len(parameters)}")
    return Kernel(kind, *(parameters or (0.0, 0.0, 0.0)))


def _compare(x: Node, vectors: np.ndarray, kernel: Kernel) -> Node:
    """The kernel of each row of x [rows, k] and each of `vectors` [n, k]: [rows, n]."""
    if kernel.kind == "RBF":
        shape = (x.shape[0], *vectors.shape)
        wide = build.expand(build.reshape(x, [x.shape[0], 1, x.shape[1]]), shape)
        difference = elementwise("SUB", wide, build.expand(build.constant(vectors), shape))
        distance = build.reduce("SUM", elementwise("MUL", difference, difference), [2])
        return elementwise("EXP", elementwise("MUL", distance, like(-kernel.gamma, distance)))
    product = _times(x, vectors)
    if kernel.kind == "LINEAR":
        return product
    scaled = elementwise("MUL", product, like(kernel.gamma, product))
    shifted = elementwise("ADD", scaled, like(kernel.coefficient, scaled))
    if kernel.kind == "SIGMOID":
        return elementwise("TANH", shifted)
    if kernel.degree in (2.0, 3.0):
        square = elementwise("MUL", shifted, shifted)
        return square if kernel.degree == 2.0 else elementwise("MUL", square, shifted)
    return elementwise("POW", shifted, like(kernel.degree, shifted))


def _support_vectors(ctx: NodeContext, count: int, x: Node) -> np.ndarray:
    vectors = _floats(ctx, "support_vectors")
    ctx.require(
        len(vectors) == count * x.shape[1],
        f"'support_vectors' must hold {count * x.shape[1]} numbers ({count} vectors of {x.shape[1]} "
        f"features), not {len(vectors)}",
    )
    return vectors.reshape(count, x.shape[1])


@onnx_op("SVMRegressor", domain=DOMAIN, tolerance=ACCUMULATED)
def svm_regressor(ctx: NodeContext, x: Node) -> Node:
    """A sum over support vectors, or a linear function; `one_class` gives its sign."""
    x = _input_rows(ctx, x)
    kernel = _kernel(ctx)
    count = ctx.integer("n_supports", 0, minimum=0)
    coefficients, rho = _floats(ctx, "coefficients"), _floats(ctx, "rho")
    ctx.require(len(rho) >= 1, "'rho' must hold a number")
    if count:
        compared = _compare(x, _support_vectors(ctx, count, x), kernel)
        ctx.require(
            len(coefficients) == count, f"'coefficients' must hold {count} numbers, not {len(coefficients)}"
        )
    else:
        compared = x
        ctx.require(
            len(coefficients) == x.shape[1],
            f"'coefficients' must hold {x.shape[1]} numbers, not {len(coefficients)}",
        )
    scores = _times(compared, coefficients[None])
    scores = elementwise("ADD", scores, like(float(rho[0]), scores))
    if ctx.flag("one_class"):
        positive = elementwise("CMPLT", like(0, scores), scores)
        return elementwise("WHERE", positive, like(1, scores), like(-1, scores))
    return scores


@onnx_op("SVMClassifier", domain=DOMAIN, tolerance=ACCUMULATED)
def svm_classifier(ctx: NodeContext, x: Node) -> Any:
    """The class with the most votes of one-against-one machines (or the largest linear score), and scores."""
    x = _input_rows(ctx, x)
    labels = ml_scores.class_labels(ctx, "classlabels_ints")
    ctx.require(len(labels) > 0, "has no class labels")
    transform = ml_scores.post_transform(ctx)
    counts = ctx.integers("vectors_per_class", [], minimum=0) or []
    if sum(counts):
        return _one_against_one(ctx, x, labels, counts, transform)
    return _one_against_rest(ctx, x, labels, transform)


def _one_against_rest(
    ctx: NodeContext, x: Node, labels: Sequence[int] | Sequence[str], transform: str
) -> Any:
    classes = len(labels)
    coefficients, rho = _floats(ctx, "coefficients"), _floats(ctx, "rho")
    ctx.require(len(rho) >= 1, "'rho' must hold a number")
    ctx.require(
        len(coefficients) == classes * x.shape[1],
        f"'coefficients' must hold {classes * x.shape[1]} numbers, not {len(coefficients)}",
    )
    scores = _times(x, coefficients.reshape(classes, x.shape[1]))
    scores = elementwise("ADD", scores, like(float(rho[0]), scores))
    best = ml_scores.best_class(scores)
    if classes == 2 and not _floats(ctx, "prob_a").size:
        largest = build.reduce("MAX", scores, [1])
        best = _for_second(best, largest, bool((coefficients >= 0).all()))
    return ml_scores.labelled(ctx, best, labels, _transformed(scores, transform))


def _for_second(best: Node, largest: Node, positive: bool) -> Node:
    """onnxruntime's rule for two classes: a large enough best score speaks for the second."""
    limit = like(0.5 if positive else 0.0, largest)
    large = elementwise("CMPLE" if positive else "CMPLT", limit, largest)
    return elementwise("WHERE", large, like(1, best), best)


def _pair_weights(coefficients: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The weight of each support vector in each pair of classes: [pairs, vectors]."""
    ends = np.cumsum([0, *counts])
    classes = len(counts)
    rows = []
    for i in range(classes - 1):
        for j in range(i + 1, classes):
            row = np.zeros(ends[-1], np.float32)
            row[ends[i] : ends[i + 1]] = coefficients[j - 1, ends[i] : ends[i + 1]]
            row[ends[j] : ends[j + 1]] = coefficients[i, ends[j] : ends[j + 1]]
            rows.append(row)
    return np.stack(rows)


def _one_against_one(
    ctx: NodeContext, x: Node, labels: Sequence[int] | Sequence[str], counts: Sequence[int], transform: str
) -> Any:
    classes, count = len(labels), sum(counts)
    ctx.require(
        len(counts) == classes, f"'vectors_per_class' has {len(counts)} numbers for {classes} classes"
    )
    ctx.require(classes >= 2, "needs two classes")
    pairs = classes * (classes - 1) // 2
    ctx.table_size(pairs * count, "the table of pairs of classes and support vectors")
    coefficients, rho = _floats(ctx, "coefficients"), _floats(ctx, "rho")
    ctx.require(
        len(coefficients) == (classes - 1) * count,
        f"'coefficients' must hold {(classes - 1) * count} numbers, not {len(coefficients)}",
    )
    ctx.require(len(rho) >= pairs, f"'rho' must hold {pairs} numbers, not {len(rho)}")
    compared = _compare(x, _support_vectors(ctx, count, x), _kernel(ctx))
    scores = _times(compared, _pair_weights(coefficients.reshape(classes - 1, count), counts))
    scores = build.apply("ADD", scores, build.constant(rho[:pairs]))
    best = ml_scores.best_class(_votes(scores, classes))
    a, b = _floats(ctx, "prob_a"), _floats(ctx, "prob_b")
    ctx.require(len(a) == len(b) and len(a) in (0, pairs), f"'prob_a' and 'prob_b' must hold {pairs} numbers")
    if len(a):
        return _probabilities(ctx, (best, scores), (a, b), labels, transform)
    if classes > 2:
        return ml_scores.labelled(ctx, best, labels, _transformed(scores, transform))
    only = ml_scores.column(scores, 0)
    result = ml_scores.both_classes(only, transform, probability=transform != "NONE")
    return ml_scores.labelled(ctx, best, labels, result)


def _votes(scores: Node, classes: int) -> Node:
    """How many pairs each class wins: [rows, classes]. The first of a pair wins with a positive score."""
    pairs = [(i, j) for i in range(classes - 1) for j in range(i + 1, classes)]
    won = elementwise("CMPLT", like(0, scores), scores)
    for_first = np.zeros((len(pairs), classes), np.int32)
    for number, (i, j) in enumerate(pairs):
        for_first[number, i], for_first[number, j] = 1, -1
    # a lost pair is a vote for its second: count the second's votes as given, and move those that are won
    start = (for_first < 0).sum(axis=0).astype(np.int32)
    shape = (scores.shape[0], *for_first.shape)
    wide = build.expand(build.reshape(won, [*scores.shape, 1]), shape)
    moved = build.expand(build.constant(for_first), shape)
    total = build.reduce("SUM", elementwise("WHERE", wide, moved, like(0, moved)), [1])
    return build.apply("ADD", total, build.constant(start))


def _probabilities(
    ctx: NodeContext,
    found: tuple[Node, Node],
    platt: tuple[np.ndarray, np.ndarray],
    labels: Sequence[int] | Sequence[str],
    transform: str,
) -> Any:
    """Labels, and the probabilities of the classes from those of the pairs (Platt scaling, then coupling)."""
    best, scores = found
    value = build.apply("ADD", build.apply("MUL", scores, build.constant(platt[0])), build.constant(platt[1]))
    first = elementwise("SIGMOID", elementwise("NEG", value))
    names = np.asarray(labels, object if isinstance(labels[0], str) else np.int64)

    def coupled(numbers: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = couple_pairs(values, len(names))
        if transform != "NONE":
            graph = ml_scores.transform_scores(build.input_node("scores", result.shape, "float32"), transform)
            result = evaluate([graph], {"scores": result})[0]
        return names[numbers], result

    return ctx.host_call(coupled, [best, first], outputs=2)


def couple_pairs(first: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities [rows, classes] from those of the first class in each pair [rows, pairs].

    The second method of Wu, Lin and Weng, "Probability estimates for multi-class classification by pairwise
    coupling" (2004), as libsvm iterates it: up to 100 rounds, until no class is off by 0.005 / classes.
    """
    first = np.clip(first.astype(np.float32), np.float32(1e-7), np.float32(1) - np.float32(1e-7))
    rows = len(first)
    pair = np.zeros((rows, classes, classes), np.float32)
    i, j = np.triu_indices(classes, 1)
    pair[:, i, j], pair[:, j, i] = first, 1 - first
    q = -np.swapaxes(pair, 1, 2) * pair
    diagonal = np.arange(classes)
    q[:, diagonal, diagonal] = np.square(np.swapaxes(pair, 1, 2)).sum(axis=2)
    p = np.full((rows, classes), 1 / classes, np.float32)
    going = np.arange(rows)
    for _ in range(100):
        current, matrix = p[going], q[going]
        step = np.einsum("nij,nj->ni", matrix, current)
        total = (current * step).sum(axis=1)
        far = np.abs(step - total[:, None]).max(axis=1, initial=0) >= 0.005 / classes
        going, current, matrix, step, total = (v[far] for v in (going, current, matrix, step, total))
        if not len(going):
            break
        for c in range(classes):
            own = matrix[:, c, c]
            change = (total - step[:, c]) / own
            scale = 1 + change
            current[:, c] += change
            total = (total + change * (change * own + 2 * step[:, c])) / scale / scale
            step = (step + change[:, None] * matrix[:, c]) / scale[:, None]
            current /= scale[:, None]
        p[going] = current
    return p
