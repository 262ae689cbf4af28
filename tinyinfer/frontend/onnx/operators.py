"""Imports every family of operators, which fills the op table."""

from __future__ import annotations

import importlib

FAMILIES = (
    "elementwise",
    "activation",
    "logic",
    "cast",
    "legacy",
    "loss",
    "random",
    "training",
    "gradient",
    "matmul",
    "conv",
    "pool",
    "shape",
    "constant",
    "index",
    "scatter",
    "sort",
    "reduce",
    "norm",
    "resize",
    "image",
    "unpool",
    "determinant",
    "roi",
    "deform_conv",
    "grid_sample",
    "signal",
    "recurrent",
    "scan",
    "attention",
    "flex_attention",
    "linear_attention",
    "microsoft",
    "microsoft_norm",
    "microsoft_attention",
    "microsoft_group_attention",
    "microsoft_experts",
    "control",
    "quantise",
    "integer",
    "qlinear",
    "nbits",
    "fused",
    "quantised_attention",
    "quantised_recurrent",
    "sequence",
    "data_dependent",
    "loop",
    "ml_tree",
    "ml_features",
    "ml_linear",
    "ml_labels",
    "text",
)


def register_all() -> None:
    """Fill the op table; a second call does nothing."""
    for family in FAMILIES:
        importlib.import_module(f"tinyinfer.frontend.onnx.ops.{family}")
