"""Random decision trees as attributes of the ONNX operators, for the tests."""

import numpy as np
from onnx import helper, numpy_helper

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def listed_trees(
    rng, trees, features, targets, modes=MODES, prefix="target", given="all", positive=False, depth=4
):
    """Attributes of TreeEnsembleClassifier or -Regressor. `given` says which targets a leaf has a weight for:
    "all", the "tree"'s own, "some", or one number."""
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    lists = {f"nodes_{name}": [] for name in (*names, "missing_value_tracks_true")}
    weights = {f"{prefix}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}

    def targets_of(tree):
        if given == "all":
            return range(targets)
        if given == "some":
            return [k for k in range(targets) if rng.random() < 0.5] or [0]
        return [tree % targets if given == "tree" else given]

    def grow(tree, nodes, left):
        here = len(nodes)
        nodes.append(None)
        if left == 0 or (here and rng.random() < 0.2):
            nodes[here] = (0, 0.0, "LEAF", 0, 0, 0)
            for target in targets_of(tree):
                weight = float(np.float32(rng.normal()))
                row = (tree, here, target, abs(weight) if positive else weight)
                for values, value in zip(weights.values(), row):
                    values.append(value)
        else:
            following = grow(tree, nodes, left - 1), grow(tree, nodes, left - 1)
            threshold = float(rng.integers(-3, 4))
            missing = int(rng.random() < 0.5)
            nodes[here] = (
                int(rng.integers(features)),
                threshold,
                str(rng.choice(modes)),
                *following,
                missing,
            )
        return here

    for tree in range(trees):
        nodes = []
        grow(tree, nodes, depth)
        for number, row in enumerate(nodes):
            for values, value in zip(lists.values(), (tree, number, *row)):
                values.append(value)
    return {**lists, **weights}


def apart_trees(rng, trees, features, targets, dtype, depth=3):
    """Attributes of TreeEnsemble, with sets of members."""
    nodes, leaves, members, roots = [], [], {}, []

    def grow(left):
        if left == 0 or (left < depth and rng.random() < 0.2):
            leaves.append((int(rng.integers(targets)), float(np.float32(rng.normal()))))
            return len(leaves) - 1, 1
        here, mode = len(nodes), int(rng.integers(7))
        nodes.append([mode, int(rng.integers(features)), float(rng.integers(-3, 4)), int(rng.random() < 0.5)])
        if mode == 6:
            members[here] = [float(v) for v in rng.integers(-4, 5, int(rng.integers(1, 6)))]
        nodes[here] += [*grow(left - 1), *grow(left - 1)]
        return here, 0

    roots = [grow(depth)[0] for _ in range(trees)]
    sets = [v for here in sorted(members) for v in (*members[here], np.nan)]
    mode, feature, split, missing, yes, yes_leaf, no, no_leaf = zip(*nodes)
    attributes = {
        "tree_roots": roots,
        "nodes_modes": helper.make_tensor("modes", 2, [len(nodes)], mode),
        "nodes_featureids": feature,
        "nodes_splits": numpy_helper.from_array(np.array(split, dtype)),
        "nodes_missing_value_tracks_true": missing,
        "nodes_truenodeids": yes,
        "nodes_trueleafs": yes_leaf,
        "nodes_falsenodeids": no,
        "nodes_falseleafs": no_leaf,
        "leaf_targetids": [target for target, _ in leaves],
        "leaf_weights": numpy_helper.from_array(np.array([w for _, w in leaves], dtype)),
        "n_targets": targets,
    }
    if sets:
        attributes["membership_values"] = numpy_helper.from_array(np.array(sets, dtype))
    return attributes
