"""Imports every family of operators, which fills the op table."""

from __future__ import annotations

import importlib

FAMILIES = (
    "ops_elementwise",
    "ops_activation",
    "ops_logic",
    "ops_cast",
    "ops_legacy",
    "ops_loss",
    "ops_random",
    "ops_training",
    "ops_gradient",
    "ops_matmul",
    "ops_conv",
    "ops_pool",
    "ops_shape",
    "ops_constant",
    "ops_index",
    "ops_scatter",
    "ops_sort",
    "ops_reduce",
    "ops_norm",
    "ops_resize",
    "ops_image",
    "ops_unpool",
    "ops_determinant",
    "ops_roi",
    "ops_deform_conv",
    "ops_grid_sample",
    "ops_signal",
    "ops_recurrent",
    "ops_scan",
    "ops_attention",
    "ops_flex_attention",
    "ops_linear_attention",
    "ops_microsoft",
    "ops_microsoft_norm",
    "ops_microsoft_attention",
    "ops_microsoft_group_attention",
    "ops_microsoft_experts",
    "ops_control",
    "ops_quantise",
    "ops_integer",
    "ops_qlinear",
    "ops_nbits",
    "ops_fused",
    "ops_quantised_attention",
    "ops_quantised_recurrent",
    "ops_sequence",
    "ops_data_dependent",
    "ops_loop",
    "ops_ml_tree",
    "ops_ml_features",
    "ops_ml_linear",
    "ops_ml_labels",
    "ops_text",
)


def register_all() -> None:
    """Fill the op table; a second call does nothing."""
    for family in FAMILIES:
        importlib.import_module(f"tinyinfer.frontend.onnx.{family}")
