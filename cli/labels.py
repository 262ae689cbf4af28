"""Class names from a file, and the classes that an output speaks for."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass

import numpy as np

from cli.errors import BadInput

CLASSIFIER_SIZES = (1000, 1001)
"""Numbers of classes of ImageNet models (1001: the first is "background")."""


@dataclass(frozen=True)
class ClassScore:
    """One class of an output: its index, its probability, and its name where labels are known."""

    index: int
    probability: float
    label: str | None


def read_labels(path: str) -> list[str]:
    """The labels in a file: one a line, or a JSON (or Python) list, or a mapping from index to name."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise BadInput(f"{path}: no text file of labels") from None
    stripped = text.strip()
    if stripped[:1] not in ("{", "["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(stripped)
    except ValueError:
        try:
            content = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BadInput(f"{path}: neither lines nor a list nor a mapping of labels") from None
    try:
        entries = (
            content
            if isinstance(content, list)
            else [v for _, v in sorted(content.items(), key=lambda item: int(item[0]))]
        )
    except (ValueError, TypeError, AttributeError):
        raise BadInput(f"{path}: the keys of the labels are no class indices") from None
    # Keras writes [synset, name] pairs
    return [str(entry[-1] if isinstance(entry, (list, tuple)) and entry else entry) for entry in entries]


def class_count(shape: tuple[int, ...]) -> int | None:
    """N for [N], [1, N], [1, N, 1, 1] …: the number of scores where an output has one axis longer than 1."""
    longer = [size for size in shape if size != 1]
    return longer[0] if len(longer) == 1 else None


def looks_like_imagenet(shape: tuple[int, ...]) -> bool:
    """Whether an output has the shape of an ImageNet classifier's scores (any batch)."""
    trimmed = [size for size in shape[1:] if size != 1] if len(shape) > 1 else list(shape)
    return len(trimmed) == 1 and trimmed[0] in CLASSIFIER_SIZES


def probabilities(scores: np.ndarray) -> np.ndarray:
    """`scores` [N] as they are where they already are probabilities, else their softmax, float64."""
    wide = scores.astype(np.float64)
    if wide.min() >= 0 and abs(wide.sum() - 1) < 0.01:
        return wide
    e = np.exp(wide - wide.max())
    return e / e.sum()


def top_classes(output: np.ndarray, labels: list[str] | None, count: int = 5) -> list[ClassScore]:
    """The `count` most probable classes of an output with one axis longer than 1, best first."""
    values = probabilities(output.reshape(-1))
    # a model with one class more than there are labels counts a background class first
    shift = 1 if labels is not None and len(labels) + 1 == len(values) else 0
    best = np.argsort(-values, kind="stable")[:count]

    def label(index: int) -> str | None:
        position = index - shift
        if labels is None or not 0 <= position < len(labels):
            return None
        return labels[position]

    return [ClassScore(int(i), float(values[i]), label(int(i))) for i in best]
