"""Pictures of written digits from pen strokes: random hands, pens and scanners, in numpy only.

The result looks like MNIST (LeCun, Cortes, Burges): white ink on black, the digit about 20 pixels high in a
picture of 28, its ink centred.
"""

from __future__ import annotations

import numpy as np

from models.digits.glyphs import GLYPHS, segments

SIZE = 28


def draw(labels: np.ndarray, generator: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """One picture per label: float32 [count, size, size] in 0..1. `labels`: integers 0..9, [count]."""
    pictures = np.empty((len(labels), size, size), np.float32)
    for digit, variants in GLYPHS.items():
        mine = np.flatnonzero(np.asarray(labels) == digit)
        choice = generator.integers(len(variants), size=len(mine))
        for number, glyph in enumerate(variants):
            chosen = mine[choice == number]
            for part in np.array_split(chosen, len(chosen) // 64 + 1):
                if len(part):
                    strokes = _place(_warp(segments(glyph), len(part), generator), generator)
                    pictures[part] = _ink(strokes * (size / SIZE), size, generator)
    return _scan(pictures, generator)


def _warp(strokes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """One glyph as `count` hands write it, bent, turned, slanted and stretched: [count, segments, 2, 2]."""
    points = np.broadcast_to(strokes, (count, *strokes.shape)).astype(np.float32)
    for scale in (0.05, 0.025):
        waves = generator.normal(0, 3 if scale > 0.03 else 7, (count, 1, 1, 2, 2))
        phase = generator.uniform(0, 2 * np.pi, (count, 1, 1, 2))
        amount = generator.normal(0, scale, (count, 1, 1, 2))
        points = points + amount * np.sin(np.einsum("...j,...ij->...i", points, waves) + phase)
    angle = generator.normal(0, 0.13, count)
    slant = generator.normal(0.12, 0.2, count)
    narrow = np.exp(generator.normal(-0.25, 0.22, count))
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    shear = np.zeros((count, 2, 2))
    shear[:, 0, 0], shear[:, 0, 1], shear[:, 1, 1] = narrow, -slant, 1
    return np.einsum("nij,nsej->nsei", turn @ shear, points - 0.5)


def _place(strokes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Scale the longer side to about 17 pixels between stroke centres, and centre the ink in the picture."""
    count = len(strokes)
    extent = strokes.max(axis=(1, 2)) - strokes.min(axis=(1, 2))
    target = np.clip(generator.normal(17.3, 1.3, count), 13, 21)
    strokes = strokes * (target / extent.max(axis=1))[:, None, None, None]
    length = np.linalg.norm(strokes[:, :, 1] - strokes[:, :, 0], axis=-1, keepdims=True)
    centre = (strokes.mean(axis=2) * length).sum(axis=1) / length.sum(axis=1)
    middle = SIZE / 2 + generator.normal(0, 1.0, (count, 2))
    return strokes + (middle - centre)[:, None, None]


def _ink(strokes: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Coverage 0..1 by a round pen whose pressure changes along the way: [count, size, size]."""
    count, number = strokes.shape[:2]
    scale = size / SIZE
    first = np.clip(generator.normal(1.35, 0.45, (count, 1, 1)), 0.6, 2.7)
    last = np.clip(first * np.exp(generator.normal(0, 0.2, (count, 1, 1))), 0.55, 2.7)
    radius = scale * (first + (last - first) * np.linspace(0, 1, number)[None, :, None]).astype(np.float32)
    soft = scale * generator.uniform(0.45, 1.0, (count, 1)).astype(np.float32)
    centres = np.arange(size, dtype=np.float32) + 0.5
    grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    strokes = strokes.astype(np.float32)
    along = strokes[:, :, 1] - strokes[:, :, 0]
    squared = np.maximum((along**2).sum(-1, keepdims=True), 1e-6)
    offset_x = grid[:, 0] - strokes[:, :, 0, 0, None]
    offset_y = grid[:, 1] - strokes[:, :, 0, 1, None]
    t = np.clip((offset_x * along[:, :, 0, None] + offset_y * along[:, :, 1, None]) / squared, 0, 1)
    away = np.hypot(offset_x - t * along[:, :, 0, None], offset_y - t * along[:, :, 1, None])
    signed = (away - radius).min(axis=1)
    return np.clip(0.5 - signed / (2 * soft), 0, 1).reshape(count, size, size)


def _scan(pictures: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur, contrast and noise of a scanner or a compressed picture, each in some of the pictures only."""
    count = len(pictures)
    blur = (generator.uniform(0, 0.25, count) * (generator.random(count) < 0.5)).astype(np.float32)
    amount = blur[:, None, None]
    for axis in (1, 2):
        before, after = np.roll(pictures, 1, axis), np.roll(pictures, -1, axis)
        pictures = (1 - 2 * amount) * pictures + amount * (before + after)
    bright = generator.uniform(0.75, 1.0, (count, 1, 1)).astype(np.float32)
    grain = (generator.uniform(0, 0.08, count) * (generator.random(count) < 0.5)).astype(np.float32)
    noise = generator.standard_normal(pictures.shape, dtype=np.float32) * grain[:, None, None]
    return np.clip(pictures * bright + noise, 0, 1)
