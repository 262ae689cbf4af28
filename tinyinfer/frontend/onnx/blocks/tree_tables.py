"""Decision trees as tables: every node says the same thing, so that all trees walk in step.

ONNX has seven ways to compare a feature with a node. Here each inner node asks one of two questions,
`feature <= threshold` or `feature == threshold` (in a forest that only says BRANCH_LT, `<` for `<=`), and
says where a NaN goes. The opposites swap their branches; a set of members is a binary search that ends in
`==`. Leaves point at themselves, so that walking further than a leaf changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MODES = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
    "LEAF",
)
"""In the order of the numbers that TreeEnsemble uses; it has no number for a leaf."""

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(len(MODES))


@dataclass
class Forest:
    """Trees as a file gives them, all nodes in one list.

    `mode` holds numbers of MODES; `yes` and `no` the node that follows, by position in the list; `nan_is_yes`
    whether a missing feature counts as a yes. `members` are the sets of the MEMBER nodes, by node.
    """

    roots: np.ndarray
    mode: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    nan_is_yes: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    members: dict[int, np.ndarray]


@dataclass
class TreeTables:
    """Inner nodes are numbered before the leaves.

    A node's answers are `children[node, 0]` (yes) and `children[node, 1]`; a leaf's are the leaf itself.
    `feature` and the other questions are 0 at leaves. `leaves` gives for each leaf its position in the
    forest's list. `steps` is the number of questions on the longest path.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    equal: np.ndarray
    nan_is_yes: np.ndarray
    children: np.ndarray
    leaves: np.ndarray
    steps: int
    strict: bool

    @property
    def inner(self) -> int:
        """The number of inner nodes; leaf i is node `inner + i`."""
        return len(self.children) - len(self.leaves)


def build_tables(forest: Forest, most_steps: int) -> TreeTables:
    """The tables of `forest`; ValueError for a cycle, a path of more than `most_steps` questions, an answer
    that is no node."""
    _expand_members(forest)
    strict = not (forest.mode == LEQ).any() and not (forest.mode == GT).any()
    _normalise(forest, strict)
    count = len(forest.mode)
    inner = forest.mode != LEAF
    children = np.stack([forest.yes, forest.no], axis=1)
    children[~inner] = np.flatnonzero(~inner)[:, None]
    if children.size and not 0 <= children.min() <= children.max() < count:
        raise ValueError("a branch leads to no node")
    reached, steps = _walk(forest.roots, children, inner, most_steps)
    order = np.concatenate([np.flatnonzero(reached & inner), np.flatnonzero(reached & ~inner)])
    number = np.zeros(count, np.int64)
    number[order] = np.arange(len(order))
    questions = inner[order]

    def table(values: np.ndarray) -> np.ndarray:
        return np.where(questions, values[order], np.zeros((), values.dtype))

    return TreeTables(
        roots=number[forest.roots],
        feature=table(forest.feature),
        threshold=table(forest.threshold),
        equal=table(forest.mode == EQ),
        nan_is_yes=table(forest.nan_is_yes),
        children=number[children[order]],
        leaves=order[~questions],
        steps=steps,
        strict=strict,
    )


def _walk(
    roots: np.ndarray, children: np.ndarray, inner: np.ndarray, most_steps: int
) -> tuple[np.ndarray, int]:
    """Which nodes are reached, and the questions on the longest path."""
    reached = np.zeros(len(inner), bool)
    front, steps = np.unique(roots), 0
    while True:
        reached[front] = True
        asking = front[inner[front]]
        if not asking.size:
            return reached, steps
        steps += 1
        if steps > most_steps:
            raise ValueError(f"a tree has a cycle, or a path of more than {most_steps} branches")
        front = np.unique(children[asking])


def _normalise(forest: Forest, strict: bool) -> None:
    """Modes become LEQ (which means `<` if `strict`) and EQ."""
    mode, threshold = forest.mode, forest.threshold
    # nothing is above, below or equal to NaN, so there the branches must stay
    undefined = np.isnan(threshold) & (mode != LEAF)
    forest.nan_is_yes |= mode == NEQ
    swapped = np.isin(mode, (GTE, GT, NEQ)) & ~undefined
    always = undefined & (mode == NEQ)
    forest.yes[swapped], forest.no[swapped] = forest.no[swapped], forest.yes[swapped]
    forest.nan_is_yes[swapped] ^= True
    forest.no[always] = forest.yes[always]
    if not strict:
        below = np.isin(mode, (LT, GTE))
        threshold[below] = _next_below(threshold[below])
    equal = np.isin(mode, (EQ, NEQ))
    forest.mode = np.where(mode == LEAF, LEAF, np.where(equal, EQ, LEQ))


def _next_below(threshold: np.ndarray) -> np.ndarray:
    """The largest number below each threshold that is not subnormal: those count as zero in a kernel."""
    tiny = np.finfo(threshold.dtype).tiny
    with np.errstate(under="ignore"):
        below = np.nextafter(threshold, threshold.dtype.type(-np.inf))
    below = np.where((below > -tiny) & (below < 0), -tiny, np.where((below > 0) & (below < tiny), 0, below))
    return np.where(np.isneginf(threshold), np.nan, below).astype(threshold.dtype)


def _expand_members(forest: Forest) -> None:
    """Replace each MEMBER node by a binary search of its sorted set, with one EQ node per member."""
    added: list[tuple[int, int, float, bool, int, int]] = []  # mode, feature, threshold, nan, yes, no
    count = len(forest.mode)
    for position in np.flatnonzero(forest.mode == MEMBER).tolist():
        members = np.unique(forest.members[position])
        shared = (int(forest.feature[position]), bool(forest.nan_is_yes[position]))
        yes, no = int(forest.yes[position]), int(forest.no[position])
        # the parts still to search: where in the lists its first node goes, and the members that are left
        pending = [(position, 0, len(members))]
        while pending:
            place, start, stop = pending.pop()
            if stop - start <= 1:
                value = float(members[start]) if stop > start else float("nan")
                row = (EQ, shared[0], value, shared[1], yes, no)
            else:
                middle = (start + stop) // 2
                left = count + len(added)
                added += [(LEAF, 0, 0.0, False, 0, 0)] * 2
                row = (LEQ, shared[0], float(members[middle - 1]), shared[1], left, left + 1)
                pending += [(left, start, middle), (left + 1, middle, stop)]
            if place < count:
                _set(forest, place, row)
            else:
                added[place - count] = row
    if not added:
        return
    columns = list(zip(*added))
    for name, column in zip(("mode", "feature", "threshold", "nan_is_yes", "yes", "no"), columns):
        old = getattr(forest, name)
        setattr(forest, name, np.concatenate([old, np.asarray(column, old.dtype)]))


def _set(forest: Forest, place: int, row: tuple[int, int, float, bool, int, int]) -> None:
    names = ("mode", "feature", "threshold", "nan_is_yes", "yes", "no")
    for name, value in zip(names, row):
        getattr(forest, name)[place] = value
