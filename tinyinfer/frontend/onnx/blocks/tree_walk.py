"""Decision trees in the IR: all trees walk in step for all rows, by gathers; then the leaves add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinyinfer.frontend.onnx.blocks.tree_tables import TreeTables
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Node, output_axis

MOST_UNROLLED = 40
"""Paths of at most this many questions are one expression; longer ones are walked in a loop."""

UNROLLED = 16
"""Questions in each round of that loop."""


@dataclass
class Leaves:
    """What the leaves say: `weights` [leaves, targets], and `given`, where they say anything."""

    weights: np.ndarray
    given: np.ndarray


# ---- the walk


def _look_up(table: np.ndarray, node: Node) -> Node:
    """table[node] for numbers of nodes, which are known to lie within the table."""
    slot = index(Slot(0, 0, len(table) - 1))
    return build.view(build.constant(table), [slot], node.shape, index_inputs=[node])


def _bit(code: Node, number: int) -> Node:
    masked = elementwise("AND", code, like(1 << number, code))
    return elementwise("CMPNE", masked, like(0, code))


def walk(x: Node, tables: TreeTables) -> Node:
    """The number of the leaf that each row of `x` [rows, features] reaches in each tree: [rows, trees]."""
    shape = (x.shape[0], len(tables.roots))
    node = build.expand(build.constant(tables.roots.astype(np.int32)), shape)
    if tables.steps <= MOST_UNROLLED:
        node = _steps(x, tables, node, tables.steps)
    else:
        # the last round may walk past the leaves, which changes nothing
        def several(_: Node, carried: list[Node], __: list[Node]) -> BodyResults:
            return BodyResults([_steps(x, tables, carried[0], UNROLLED)])

        node = loop(several, [node], -(-tables.steps // UNROLLED)).final[0]
    return elementwise("SUB", node, like(tables.inner, node)) if tables.inner else node


def _steps(x: Node, tables: TreeTables, node: Node, count: int) -> Node:
    for _ in range(count):
        node = _step(x, tables, node)
    return node


def _step(x: Node, tables: TreeTables, node: Node) -> Node:
    questions = slice(tables.inner)
    equal, to_yes = tables.equal[questions], tables.nan_is_yes[questions]
    # the feature's number and what else must be known of the question travel in one table
    code = tables.feature.astype(np.int32) * 4 + tables.equal * 2 + tables.nan_is_yes
    asked = _look_up(code.astype(np.int32), node)
    feature = elementwise("SHR", asked, like(2, asked))
    here = index(output_axis(0, node.shape[0]))
    place = index(Slot(0, 0, x.shape[1] - 1))
    value = build.view(x, [here, place], node.shape, index_inputs=[feature])
    threshold = _look_up(tables.threshold.astype(x.dtype), node)
    answer = elementwise("CMPLT" if tables.strict else "CMPLE", value, threshold)
    if equal.any():
        same = elementwise("CMPEQ", value, threshold)
        answer = same if equal.all() else elementwise("WHERE", _bit(asked, 1), same, answer)
    if to_yes.any():
        missing = elementwise("CMPNE", value, value)
        if not to_yes.all():
            missing = elementwise("AND", missing, _bit(asked, 0))
        answer = elementwise("OR", answer, missing)
    side = elementwise("WHERE", answer, like(0, node), like(1, node))
    children = build.constant(tables.children.astype(np.int32))
    places = [index(Slot(0, 0, len(tables.children) - 1)), index(Slot(1, 0, 1))]
    return build.view(children, places, node.shape, index_inputs=[node, side])


# ---- the leaves


def _below_roots(
    tables: TreeTables, leaves: np.ndarray, start: object, combine: Callable[..., np.ndarray]
) -> np.ndarray:
    """What `combine` makes of the values of all leaves below each root; `start` changes nothing in it."""
    inner = tables.inner
    values = np.concatenate([np.full((inner, *leaves.shape[1:]), start, leaves.dtype), leaves])
    for _ in range(tables.steps):
        values[:inner] = combine(values[tables.children[:inner, 0]], values[tables.children[:inner, 1]])
    return values[tables.roots]


def _gathered(table: np.ndarray, leaf: Node) -> Node:
    """table[leaf] as [rows, trees, targets]."""
    shape = (*leaf.shape, table.shape[1])
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    spread = build.view(leaf, axes[:2], shape)
    slot = index(Slot(0, 0, len(table) - 1))
    return build.view(build.constant(table), [slot, axes[2]], shape, index_inputs=[spread])


def _order_by_target(tables: TreeTables, leaves: Leaves) -> np.ndarray | None:
    """An order of the trees in which each target has an equal run; None where a tree has several targets."""
    targets = leaves.weights.shape[1]
    if not (leaves.given.sum(axis=1) == 1).all() or len(tables.roots) % targets:
        return None
    target = leaves.given.argmax(axis=1)
    lowest = _below_roots(tables, target, targets, np.minimum)
    highest = _below_roots(tables, target, -1, np.maximum)
    counts = np.bincount(lowest, minlength=targets)
    if (lowest != highest).any() or (counts != counts[0]).any():
        return None
    return np.argsort(lowest, kind="stable")


def combine_leaves(x: Node, tables: TreeTables, leaves: Leaves, how: str) -> Node:
    """The scores [rows, targets] of all trees together, 0 where no leaf gives one."""
    op = how if how in ("MIN", "MAX") else "SUM"
    trees, targets = len(tables.roots), leaves.weights.shape[1]
    nothing = {"SUM": 0.0, "MIN": np.inf, "MAX": -np.inf}[op]
    weights = np.where(leaves.given, leaves.weights, leaves.weights.dtype.type(nothing))
    order = _order_by_target(tables, leaves)
    if order is not None:
        tables = replace(tables, roots=tables.roots[order])
        single = leaves.weights[np.arange(len(weights)), leaves.given.argmax(axis=1)]
        reached = _look_up(single, walk(x, tables))
        scores = build.reduce(op, build.reshape(reached, [x.shape[0], targets, trees // targets]), [2])
        certain = True
    else:
        scores = build.reduce(op, _gathered(weights, walk(x, tables)), [1])
        certain = bool(_always_given(tables, leaves).all())
    if how == "AVERAGE":
        scores = elementwise("DIV", scores, like(trees, scores))
    if op != "SUM" and not certain:
        missing = elementwise("CMPEQ", scores, like(nothing, scores))
        scores = elementwise("WHERE", missing, like(0, scores), scores)
    return scores


def _always_given(tables: TreeTables, leaves: Leaves) -> np.ndarray:
    """For each target, whether some tree gives it in all of its leaves."""
    return np.asarray(_below_roots(tables, leaves.given, True, np.logical_and).any(axis=0))


def given_targets(x: Node, tables: TreeTables, leaves: Leaves) -> Node | np.ndarray:
    """Which targets a row has a score for: known for all rows, or bools [rows, targets]."""
    always = _always_given(tables, leaves)
    if (always == leaves.given.any(axis=0)).all():
        return always
    reached = _gathered(leaves.given.astype(np.uint8), walk(x, tables))
    return build.cast(build.reduce("MAX", reached, [1]), "bool")
