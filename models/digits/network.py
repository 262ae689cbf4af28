"""The classifier in numpy: forward, backward by im2col, and Adam.

image [n, 28, 28] → conv 3×3, 12 → ReLU → max-pool 2 → conv 3×3, 24 → ReLU → max-pool 2 → fully connected, 10.
Channels-last, since a patch is then a row of the matrix that multiplies the filters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CHANNELS = (12, 24)
Parameters = dict[str, np.ndarray]


def initial(generator: np.random.Generator) -> Parameters:
    """Random weights by He et al. 2015; filters as [3, 3, in, out], `full` as [7, 7, in, 10]."""
    first, second = CHANNELS

    def normal(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)

    return {
        "conv1": normal(3, 3, 1, first), "bias1": np.zeros(first, np.float32),
        "conv2": normal(3, 3, first, second), "bias2": np.zeros(second, np.float32),
        "full": normal(7, 7, second, 10) * np.float32(0.5), "bias3": np.zeros(10, np.float32),
    }  # fmt: skip


def logits(parameters: Parameters, images: np.ndarray) -> np.ndarray:
    """Scores [n, 10] of float32 images [n, 28, 28]."""
    return _forward(parameters, images)[0]


def loss_and_gradients(p: Parameters, images: np.ndarray, labels: np.ndarray) -> tuple[float, Parameters]:
    """Mean softmax cross-entropy over the batch, and its gradient by every parameter."""
    scores, kept = _forward(p, images)
    count = len(images)
    probability = np.exp(scores - scores.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    loss = float(-np.log(probability[np.arange(count), labels] + 1e-12).mean())
    wanted = probability
    wanted[np.arange(count), labels] -= 1
    wanted /= count
    gradients: Parameters = {
        "full": (kept["flat"].T @ wanted).reshape(p["full"].shape),
        "bias3": wanted.sum(axis=0),
    }
    flow = (wanted @ p["full"].reshape(-1, 10).T).reshape(count, 7, 7, -1)
    flow = _unpool(flow, kept["rect2"], kept["pool2"])
    gradients["conv2"] = (kept["patches2"].T @ flow.reshape(-1, flow.shape[-1])).reshape(p["conv2"].shape)
    gradients["bias2"] = flow.sum(axis=(0, 1, 2))
    flow = _from_patches(flow @ p["conv2"].reshape(-1, flow.shape[-1]).T)
    flow = _unpool(flow, kept["rect1"], kept["pool1"])
    gradients["conv1"] = (kept["patches1"].T @ flow.reshape(-1, flow.shape[-1])).reshape(p["conv1"].shape)
    gradients["bias1"] = flow.sum(axis=(0, 1, 2))
    return loss, gradients


class Adam:
    """Kingma and Ba 2015; changes the parameters in place."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.mean = {k: np.zeros_like(v) for k, v in parameters.items()}
        self.square = {k: np.zeros_like(v) for k, v in parameters.items()}
        self.steps = 0

    def step(self, gradients: Parameters, rate: float) -> None:
        """One update at the learning rate `rate`."""
        self.steps += 1
        correction = np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for key, gradient in gradients.items():
            self.mean[key] += 0.1 * (gradient - self.mean[key])
            self.square[key] += 0.001 * (gradient**2 - self.square[key])
            self.parameters[key] -= rate * correction * self.mean[key] / (np.sqrt(self.square[key]) + 1e-7)


def _forward(p: Parameters, images: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    kept: dict[str, Any] = {}
    x = images[..., None]
    for number in ("1", "2"):
        kept["patches" + number] = patches = _patches(x)
        rect = patches @ p["conv" + number].reshape(patches.shape[1], -1)
        rect += p["bias" + number]
        np.maximum(rect, 0, out=rect)
        kept["rect" + number] = rect = rect.reshape(*x.shape[:3], -1)
        n, h, w, c = rect.shape
        kept["pool" + number] = x = rect.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    kept["flat"] = flat = x.reshape(len(x), -1)
    return flat @ p["full"].reshape(-1, 10) + p["bias3"], kept


def _patches(x: np.ndarray) -> np.ndarray:
    """Every 3×3 neighbourhood as a row: [n, h, w, c] → [n·h·w, 9·c], zeros outside (im2col)."""
    n, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = np.empty((n, h, w, 9, c), np.float32)
    for i in range(9):
        rows[:, :, :, i] = padded[:, i // 3 : i // 3 + h, i % 3 : i % 3 + w]
    return rows.reshape(n * h * w, 9 * c)


def _from_patches(rows: np.ndarray) -> np.ndarray:
    """The transpose of `_patches`: [n, h, w, 9·c] → [n, h, w, c], overlapping values added (col2im)."""
    n, h, w, _ = rows.shape
    rows = rows.reshape(n, h, w, 9, -1)
    padded = np.zeros((n, h + 2, w + 2, rows.shape[-1]), np.float32)
    for i in range(9):
        padded[:, i // 3 : i // 3 + h, i % 3 : i % 3 + w] += rows[:, :, :, i]
    return padded[:, 1:-1, 1:-1]


def _unpool(flow: np.ndarray, rect: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Gradient before ReLU and max-pooling: to its window's maximum where that is positive.

    Equal maxima, which is what blank paper gives, share the gradient.
    """
    n, h, w, c = rect.shape
    windows = rect.reshape(n, h // 2, 2, w // 2, 2, c)
    chosen = (windows == pooled[:, :, None, :, None]) & (windows > 0)
    flow = flow / np.maximum(chosen.sum(axis=(2, 4)), 1).astype(np.float32)
    return (chosen * flow[:, :, None, :, None]).reshape(rect.shape)
