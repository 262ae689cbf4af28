"""The operators on decision trees: their attributes checked, then tables, a walk, scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.frontend.onnx.blocks import ml_scores, tree_tables
from tinyinfer.frontend.onnx.blocks.ml_scores import DOMAIN, column, columns
from tinyinfer.frontend.onnx.blocks.tree_tables import Forest, TreeTables
from tinyinfer.frontend.onnx.blocks.tree_walk import Leaves, combine_leaves, given_targets
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""In the order of the numbers that TreeEnsemble uses."""


# ---- attributes


def _list(ctx: NodeContext, name: str, length: int, missing: int | None = None) -> np.ndarray:
    """A list of integers as long as there are nodes (or leaves)."""
    values = ctx.integers(name, None)
    if values is None and missing is not None:
        return np.full(length, missing, np.int64)
    values = values or []
    ctx.require(
        len(values) == length, f"the attribute '{name}' must hold {length} numbers, not {len(values)}"
    )
    return np.asarray(values, np.int64)


def _numbers(ctx: NodeContext, name: str, dtype: str, length: int | None = None) -> np.ndarray:
    """Floats of the attribute `name`, or of the tensor `name_as_tensor`."""
    listed, tensor = ctx.numbers(name, None), ctx.tensor(f"{name}_as_tensor")
    ctx.require(not listed or tensor is None, f"has both '{name}' and '{name}_as_tensor'")
    values = np.asarray(listed or [], np.float32) if tensor is None else tensor.array.reshape(-1)
    ctx.require(values.dtype.kind == "f", f"'{name}_as_tensor' must hold floats, not {values.dtype}")
    ctx.require(
        length is None or len(values) == length,
        f"the attribute '{name}' must hold {length} numbers, not {len(values)}",
    )
    return values.astype(dtype)


def _find(ctx: NodeContext, keys: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """The position in `keys` (rows of tree and node number) of each row of `wanted`."""
    both = np.concatenate([keys, wanted])
    _, number = np.unique(both, axis=0, return_inverse=True)
    number = number.reshape(-1)
    position = np.full(len(both), -1, np.int64)
    position[number[: len(keys)]] = np.arange(len(keys))
    found = position[number[len(keys) :]]
    if (found < 0).any():
        tree, node = wanted[int(np.argmax(found < 0))].tolist()
        ctx.fail(f"{what} names node {node} of tree {tree}, which does not exist")
    return found


def _check_features(ctx: NodeContext, forest: Forest, features: int) -> None:
    asked = forest.feature[forest.mode != tree_tables.LEAF]
    if asked.size and not 0 <= asked.min() <= asked.max() < features:
        bad = int(asked.min()) if asked.min() < 0 else int(asked.max())
        ctx.fail(f"a node asks for feature {bad}, but a row has {features}")


def _weigh(
    ctx: NodeContext,
    leaf: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    counts: tuple[int, int],
    how: str,
) -> Leaves:
    """Entries (leaf, target, weight) as tables; entries for the same place are combined as leaves are."""
    ctx.table_size(counts[0] * counts[1], "the table of leaves and targets")
    if target.size and not 0 <= target.min() <= target.max() < counts[1]:
        bad = int(target.min()) if target.min() < 0 else int(target.max())
        ctx.fail(f"a leaf has a weight for target {bad} of {counts[1]}")
    given = np.zeros(counts, bool)
    given[leaf, target] = True
    start = {"MIN": np.inf, "MAX": -np.inf}.get(how, 0.0)
    weights = np.full(counts, start, weight.dtype)
    combine = {"MIN": np.minimum, "MAX": np.maximum}.get(how, np.add)
    combine.at(weights, (leaf, target), weight)
    weights[~given] = 0
    return Leaves(weights, given)


def _listed_forest(
    ctx: NodeContext, x: Node, prefix: str, targets: int, how: str
) -> tuple[TreeTables, Leaves]:
    """The trees of TreeEnsembleClassifier and TreeEnsembleRegressor: nodes named by tree and number."""
    names = ctx.strings("nodes_modes", []) or []
    count = len(names)
    ctx.require(count > 0, "has no nodes")
    codes = {name: i for i, name in enumerate(tree_tables.MODES) if name != "BRANCH_MEMBER"}
    unknown = [n for n in names if n not in codes]
    ctx.require(not unknown, f"'nodes_modes' holds '{unknown[0] if unknown else ''}'")
    mode = np.asarray([codes[n] for n in names], np.int64)
    tree = _list(ctx, "nodes_treeids", count)
    keys = np.stack([tree, _list(ctx, "nodes_nodeids", count)], axis=1)
    ctx.require(len(np.unique(keys, axis=0)) == count, "lists a node twice")
    inner = mode != tree_tables.LEAF
    following = []
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        wanted = np.stack([tree, _list(ctx, name, count)], axis=1)[inner]
        place = np.zeros(count, np.int64)
        place[inner] = _find(ctx, keys, wanted, f"'{name}'")
        following.append(place)
    _, first = np.unique(tree, return_index=True)
    forest = Forest(
        roots=np.sort(first),
        mode=mode,
        feature=_list(ctx, "nodes_featureids", count),
        threshold=_numbers(ctx, "nodes_values", x.dtype, count),
        nan_is_yes=_list(ctx, "nodes_missing_value_tracks_true", count, missing=0) != 0,
        yes=following[0],
        no=following[1],
        members={},
    )
    _check_features(ctx, forest, x.shape[1])
    weight = _numbers(ctx, f"{prefix}_weights", x.dtype)
    owner = np.stack([_list(ctx, f"{prefix}_{k}", len(weight)) for k in ("treeids", "nodeids")], axis=1)
    place = _find(ctx, keys, owner, f"'{prefix}_nodeids'")
    target = _list(ctx, f"{prefix}_ids", len(weight))
    tables = tree_tables.build_tables(forest, ctx.importer.limits.max_tree_depth)
    return tables, _leaves(ctx, tables, count, (place, target, weight), targets, how)


def _leaves(
    ctx: NodeContext,
    tables: TreeTables,
    count: int,
    entries: tuple[np.ndarray, np.ndarray, np.ndarray],
    targets: int,
    how: str,
) -> Leaves:
    """The table of leaves from (node, target, weight); weights of inner and unreached nodes say nothing."""
    number = np.full(count, -1, np.int64)
    number[tables.leaves] = np.arange(len(tables.leaves))
    place, target, weight = entries
    kept = number[place] >= 0
    sizes = (len(tables.leaves), targets)
    return _weigh(ctx, number[place][kept], target[kept], weight[kept], sizes, how)


def _base_values(ctx: NodeContext, dtype: str, allowed: Sequence[int]) -> np.ndarray:
    base = _numbers(ctx, "base_values", dtype)
    ctx.require(
        len(base) in (0, *allowed),
        f"'base_values' must hold {' or '.join(map(str, allowed))} numbers, not {len(base)}",
    )
    return base


def _row_input(ctx: NodeContext, x: Node, allowed: Sequence[str] = ml_scores.NUMBERS) -> Node:
    """Rows in the type that the questions are asked in: float64 stays, all else is float32."""
    ml_scores.require_numbers(ctx, x, allowed)
    return ml_scores.rows(ctx, x, "float64" if x.dtype == "float64" else "float32")


# ---- operators


@onnx_op("TreeEnsembleRegressor", domain=DOMAIN, tolerance=ACCUMULATED)
def tree_ensemble_regressor(ctx: NodeContext, x: Node) -> Node:
    """The sum, average, least or largest of what the trees say, per target."""
    x = _row_input(ctx, x)
    targets = ctx.integer("n_targets", 1, minimum=1)
    how = ctx.string("aggregate_function", "SUM", choices=AGGREGATES)
    transform = ml_scores.post_transform(ctx)
    tables, leaves = _listed_forest(ctx, x, "target", targets, how)
    base = _base_values(ctx, x.dtype, [targets])
    scores = combine_leaves(x, tables, leaves, how)
    return build.cast(_finished(scores, given_targets(x, tables, leaves), base, transform), "float32")


def _finished(scores: Node, given: Node | np.ndarray, base: np.ndarray, transform: str) -> Node:
    """Base values and transform. Of several targets one without a score is 0 whatever its base value, and one
    alone knows no transform but PROBIT, as in onnxruntime."""
    if base.size:
        scores = build.apply("ADD", scores, build.constant(base))
    if scores.shape[1] == 1:
        return ml_scores.probit(scores) if transform == "PROBIT" else scores
    if isinstance(given, Node):
        scores = elementwise("WHERE", given, scores, like(0, scores))
    elif not given.all():
        here = build.expand(build.constant(given), scores.shape)
        scores = elementwise("WHERE", here, scores, like(0, scores))
    return ml_scores.transform_scores(scores, transform)


@onnx_op("TreeEnsemble", since=5, domain=DOMAIN, tolerance=ACCUMULATED)
def tree_ensemble(ctx: NodeContext, x: Node) -> Node:
    """The sum, average, least or largest of what the trees say, per target; leaves are listed apart."""
    out = x.dtype
    x = _row_input(ctx, x, ("float32", "float64", "float16"))
    targets = ctx.integer("n_targets", 1, minimum=1)
    how = AGGREGATES[ctx.integer("aggregate_function", 1, 0, len(AGGREGATES) - 1)]
    transform = ml_scores.TRANSFORMS[ctx.integer("post_transform", 0, 0, len(ml_scores.TRANSFORMS) - 1)]
    modes = _tensor(ctx, "nodes_modes", "uint8")
    count, weight = len(modes), _tensor(ctx, "leaf_weights", x.dtype)
    ctx.require(count > 0 and len(weight) > 0, "has no nodes or no leaves")
    ctx.require(int(modes.max()) < tree_tables.LEAF, f"'nodes_modes' holds {int(modes.max())}")
    threshold = _tensor(ctx, "nodes_splits", x.dtype)
    ctx.require(len(threshold) == count, f"'nodes_splits' must hold {count} numbers, not {len(threshold)}")
    following = []
    for side in ("true", "false"):
        to_leaf = _list(ctx, f"nodes_{side}leafs", count) != 0
        place = _list(ctx, f"nodes_{side}nodeids", count)
        most = np.where(to_leaf, len(weight), count)
        ctx.require(
            bool(((place >= 0) & (place < most)).all()), f"'nodes_{side}nodeids' names no node or leaf"
        )
        following.append(
            np.concatenate([np.where(to_leaf, place + count, place), np.zeros(len(weight), np.int64)])
        )
    roots = np.asarray(ctx.integers("tree_roots", []) or [], np.int64)
    ctx.require(
        roots.size > 0 and 0 <= roots.min() <= roots.max() < count,
        f"'tree_roots' must name some of {count} nodes",
    )

    def with_leaves(values: np.ndarray, filler: int) -> np.ndarray:
        return np.concatenate([values, np.full(len(weight), filler, values.dtype)])

    forest = Forest(
        roots=roots,
        mode=with_leaves(modes.astype(np.int64), tree_tables.LEAF),
        feature=with_leaves(_list(ctx, "nodes_featureids", count), 0),
        threshold=with_leaves(threshold, 0),
        nan_is_yes=with_leaves(_list(ctx, "nodes_missing_value_tracks_true", count, missing=0) != 0, 0),
        yes=following[0],
        no=following[1],
        members=_members(ctx, modes, x.dtype),
    )
    _check_features(ctx, forest, x.shape[1])
    tables = tree_tables.build_tables(forest, ctx.importer.limits.max_tree_depth)
    entries = (np.arange(len(weight)) + count, _list(ctx, "leaf_targetids", len(weight)), weight)
    leaves = _leaves(ctx, tables, len(forest.mode), entries, targets, how)
    scores = combine_leaves(x, tables, leaves, how)
    return build.cast(_finished(scores, given_targets(x, tables, leaves), np.zeros(0), transform), out)


def _tensor(ctx: NodeContext, name: str, dtype: str) -> np.ndarray:
    """A tensor attribute as a flat array."""
    tensor = ctx.tensor(name)
    ctx.require(tensor is not None, f"the attribute '{name}' is missing")
    assert tensor is not None
    kind = np.dtype(dtype).kind
    ctx.require(np.dtype(tensor.dtype).kind == kind, f"'{name}' must be like {dtype}, not {tensor.dtype}")
    return tensor.array.reshape(-1).astype(dtype)


def _members(ctx: NodeContext, modes: np.ndarray, dtype: str) -> dict[int, np.ndarray]:
    """The set of each MEMBER node: the values up to a NaN."""
    asking = np.flatnonzero(modes == tree_tables.MEMBER)
    if not asking.size:
        return {}
    values = _tensor(ctx, "membership_values", dtype)
    ends = np.flatnonzero(np.isnan(values)).tolist()
    if len(ends) < len(asking):
        ends.append(len(values))  # the last set need not be ended
    ctx.require(
        len(ends) >= len(asking),
        f"'membership_values' holds {len(ends)} sets for {len(asking)} nodes that ask for one",
    )
    starts = [0, *(e + 1 for e in ends)]
    return {int(n): values[s:e] for n, s, e in zip(asking, starts, ends)}


@onnx_op("TreeEnsembleClassifier", domain=DOMAIN, tolerance=ACCUMULATED)
def tree_ensemble_classifier(ctx: NodeContext, x: Node) -> Any:
    """The class with the largest sum over the trees, and the sums of all classes, transformed."""
    x = _row_input(ctx, x)
    labels = ml_scores.class_labels(ctx, "classlabels_int64s")
    ctx.require(len(labels) > 0, "has no class labels")
    transform = ml_scores.post_transform(ctx)
    classes = len(labels)
    tables, leaves = _listed_forest(ctx, x, "class", classes, "SUM")
    base = _base_values(ctx, x.dtype, {1: [1], 2: [1, 2]}.get(classes, [classes]))
    scores = combine_leaves(x, tables, leaves, "SUM")
    given = given_targets(x, tables, leaves)
    if classes <= 2:
        weights_of = {int(c) for c in np.flatnonzero(leaves.given.any(axis=0))}
        case = Binary(
            len(weights_of) == 1 and classes == 2, bool((leaves.weights >= 0).all()), base, transform
        )
        second, result = _binary(scores, given, case)
        # where each class has its own weights, integer labels are 0 and 1 whatever the model calls them, as
        # in onnxruntime
        named = case.one_column or isinstance(labels[0], str)
        names = [0, 1] if not named else labels * 2 if classes == 1 else labels
        return ml_scores.labelled(ctx, build.cast(second, "int64"), names, build.cast(result, "float32"))
    if base.size:
        scores = build.apply("ADD", scores, build.constant(base))
        given = np.ones(classes, bool)
    seen = scores
    if isinstance(given, Node):
        seen = elementwise("WHERE", given, scores, like(-np.inf, scores))
    elif not given.all():
        here = build.expand(build.constant(given), scores.shape)
        seen = elementwise("WHERE", here, scores, like(-np.inf, scores))
    result = build.cast(ml_scores.transform_scores(scores, transform), "float32")
    return ml_scores.labelled(ctx, ml_scores.best_class(seen), labels, result)


@dataclass
class Binary:
    """What decides between two classes: whether one column of weights serves both, whether no weight is
    negative (then scores are probabilities), base values and transform."""

    one_column: bool
    positive: bool
    base: np.ndarray
    transform: str


def _binary(scores: Node, given: Node | np.ndarray, case: Binary) -> tuple[Node, Node]:
    """Whether each row is of the second class, and the scores [rows, classes], as onnxruntime has them.

    A class that no tree gives a score counts as 0, whatever its base value. A row with no score for the
    second class has one score for both, the first's.
    """
    first, base = column(scores, 0), case.base
    if scores.shape[1] == 1:
        first = elementwise("ADD", first, like(float(base[-1]), first)) if base.size else first
        return _second(first, case), columns(ml_scores.probit(first) if case.transform == "PROBIT" else first)
    second = column(scores, 1)
    started = elementwise("ADD", first, like(float(base[0]), first)) if base.size else first
    started = _if_given(given, 0, started, like(0, first))
    if base.size == 2:
        # the second's base value stands for both; the first's score is not its own
        joint = elementwise("ADD", first, like(float(base[1]), first))
        opposite = _if_given(given, 0, elementwise("NEG", joint), like(0, first))
        has_second = (_second(joint, case), _two((opposite, joint), case))
        no_second = (_second(started, case), _two((started, like(0, first)), case))
    else:
        has_second = (_second(second, case), _two((started, second), case))
        pair = ml_scores.both_classes(started, case.transform, case.one_column and case.positive)
        if base.size and not case.one_column:
            pair = columns(started, like(0, started))  # onnxruntime leaves the second undefined
        no_second = (_second(started, case), pair)
    return (
        _if_given(given, 1, has_second[0], no_second[0]),
        _if_given(given, 1, has_second[1], no_second[1]),
    )


def _if_given(given: Node | np.ndarray, number: int, yes: Node, no: Node) -> Node:
    """`yes` for the rows that have a score for class `number`, else `no`."""
    if not isinstance(given, Node):
        return yes if given[number] else no
    there = column(given, number)
    there = build.reshape(there, [*there.shape, *[1] * (len(yes.shape) - 1)])
    return elementwise("WHERE", build.expand(there, yes.shape), yes, no)


def _second(score: Node, case: Binary) -> Node:
    """Whether a score speaks for the second class."""
    limit = 0.5 if case.one_column and case.positive else 0.0
    return elementwise("CMPLT", like(limit, score), score)


def _two(scores: tuple[Node, Node], case: Binary) -> Node:
    return ml_scores.transform_scores(columns(*scores), case.transform)
