"""How much a model may ask of the importer. Defaults are far above real models and far below what hurts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on importing one model; exceeding one raises InvalidGraph or NotImplemented in words."""

    max_nodes: int = 200_000
    """ONNX nodes imported, with functions and branches inlined."""

    max_depth: int = 32
    """Nesting of model-local functions and branches."""

    max_elements: int = 1 << 34
    """Elements of one tensor, weights and intermediate values alike."""

    loop_trips: int = 1_000_000
    """Trips of one loop in one run."""

    max_inverse: int = 64
    """Rows of a matrix to invert; each is a step of the graph."""

    max_tree_depth: int = 1024
    """Branches on one path through a decision tree."""

    fold_elements: int = 4096
    """Nodes with only constant inputs and outputs of at most this size are computed during the import."""

    constant_elements: int = 1 << 24
    """Elements of a value that an op needs as a number during the import."""


DEFAULT_LIMITS = Limits()
