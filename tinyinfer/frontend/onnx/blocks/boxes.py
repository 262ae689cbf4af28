"""Non-maximum suppression of boxes, in numpy."""

from __future__ import annotations

import numpy as np


def non_max_suppression(
    boxes: np.ndarray, scores: np.ndarray, most: int, overlap: float, least: float, centered: bool
) -> np.ndarray:
    """Rows [batch, class, box], int64, best first within each class.

    `boxes` [batches, boxes, 4] holds opposite corners (y1, x1, y2, x2), or centres and sizes
    (x, y, width, height) if `centered`; `scores` [batches, classes, boxes]. Of each class at most `most`
    boxes with scores above `least` are chosen, none whose intersection over union with a better one is above
    `overlap`. Source: ONNX NonMaxSuppression-11.
    """
    rows: list[np.ndarray] = []
    for batch, (given, weights) in enumerate(zip(boxes, scores)):
        if most <= 0:
            break
        low, high = _corners(given, centered)
        area = np.prod(high - low, axis=1)
        for number, weight in enumerate(weights):
            candidates = np.flatnonzero(weight > least)
            candidates = candidates[np.argsort(-weight[candidates], kind="stable")]
            chosen = _greedy(low, high, area, candidates, most, overlap)
            row = np.empty((len(chosen), 3), np.int64)
            row[:, 0], row[:, 1], row[:, 2] = batch, number, chosen
            rows.append(row)
    return np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)


def _corners(boxes: np.ndarray, centered: bool) -> tuple[np.ndarray, np.ndarray]:
    if centered:
        half = boxes[:, 2:] / 2
        return boxes[:, :2] - half, boxes[:, :2] + half
    return np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])


def _greedy(
    low: np.ndarray, high: np.ndarray, area: np.ndarray, order: np.ndarray, most: int, overlap: float
) -> list[int]:
    chosen: list[int] = []
    low, high, area = low[order], high[order], area[order]
    while order.size and len(chosen) < most:
        chosen.append(int(order[0]))
        shared = np.maximum(np.minimum(high[1:], high[0]) - np.maximum(low[1:], low[0]), 0)
        common = shared[:, 0] * shared[:, 1]
        union = area[1:] + area[0] - common
        solid = (area[1:] > 0) & (area[0] > 0) & (union > 0)
        keep = ~(solid & (common > overlap * np.where(solid, union, 1)))
        order, low, high, area = order[1:][keep], low[1:][keep], high[1:][keep], area[1:][keep]
    return chosen
