"""How people write the digits: pen strokes in a square, several ways per digit.

A glyph is text: strokes separated by ";", each "line" (straight between its points) or "curve" (a Catmull-Rom
spline through them), then its points as x,y in percent of the square, x to the right and y downwards. Corners
are where one stroke ends and the next begins.
"""

from __future__ import annotations

import numpy as np

GLYPHS: dict[int, tuple[str, ...]] = {
    0: (
        "curve 50,0 18,15 8,50 20,87 50,100 80,86 92,50 82,14 50,0",
        "curve 55,0 30,20 22,55 32,88 50,100 70,85 78,50 70,15 45,3",
        "curve 70,10 45,4 15,30 5,65 20,95 50,95 85,65 95,30 78,6 50,10",
        "curve 50,10 15,20 0,50 15,82 50,90 85,80 100,50 85,20 55,8 40,15",
    ),
    1: (
        "line 50,0 50,100",
        "line 68,0 32,100",
        "line 30,22 55,0 55,100",
        "line 28,20 52,0 52,100; line 25,100 80,100",
        "curve 58,0 52,35 48,70 45,100",
        "line 36,16 60,0; curve 60,0 55,40 46,100",
    ),
    2: (
        "curve 10,25 30,3 60,0 85,20 78,48 45,78 10,100; line 10,100 92,100",
        "curve 12,22 40,0 75,10 80,40 50,75 20,95 6,88 20,76 50,88 75,98 98,90",
        "curve 15,10 50,0 80,12 78,40 50,70 15,98; curve 15,98 40,90 65,97 95,95",
        "line 10,5 80,5; curve 80,5 60,45 10,97; line 10,97 90,97",
        "curve 20,35 22,10 50,0 78,12 80,38 60,62 25,90 10,98; line 10,98 85,92",
    ),
    3: (
        "curve 12,15 40,0 75,8 80,30 60,44 40,48; curve 40,48 70,52 90,72 72,95 40,100 8,88",
        "line 12,2 85,2 45,40; curve 45,40 75,46 88,70 70,94 40,100 10,88",
        "curve 15,8 50,0 78,14 70,38 42,48 38,50 50,50 80,62 80,86 50,100 12,95",
        "curve 20,20 35,2 65,2 75,22 60,42 30,50; curve 30,50 65,50 80,70 65,92 40,100 15,82",
    ),
    4: (
        "line 20,0 12,55 88,55; line 72,5 68,100",
        "curve 15,2 8,30 15,50 45,54 80,45; curve 85,0 80,45 74,100",
        "line 68,0 6,66 95,66; line 68,0 68,100",
        "line 55,0 8,60 92,58; line 68,30 60,100",
        "curve 30,0 12,45 20,55 85,48; line 75,10 50,100",
    ),
    5: (
        "line 85,2 25,2 20,42; curve 20,42 50,36 82,50 85,75 60,97 12,95",
        "curve 90,0 55,4 30,10 22,30 35,44 65,55 78,75 60,95 30,100 8,88",
        "line 25,5 22,45; curve 22,45 50,40 80,55 78,82 50,100 15,92; line 25,5 92,0",
        "line 90,4 42,4 30,40; curve 30,40 60,46 74,70 55,93 10,100",
    ),
    6: (
        "curve 75,0 40,20 18,55 20,85 50,100 80,86 82,62 55,50 28,60 19,75",
        "curve 42,0 25,35 20,70 35,97 65,97 80,77 65,58 40,62 24,80",
        "curve 85,6 55,4 25,30 12,65 28,95 60,100 85,80 75,55 45,50 15,68",
        "curve 62,0 30,40 10,80 25,100 60,92 85,70 70,60 40,72 20,92",
    ),
    7: (
        "line 10,3 88,3 40,100",
        "line 8,5 88,3; curve 88,3 62,40 48,70 42,100",
        "line 10,20 12,3 88,4 45,100",
        "line 10,4 88,3 40,100; line 30,50 85,48",
        "curve 5,20 20,6 50,10 85,4; curve 85,4 70,35 50,65 38,100",
        "curve 6,8 40,12 75,4 88,12 80,35 50,65 22,100",
        "line 15,6 80,2 72,100",
    ),
    8: (
        "curve 80,12 50,0 20,14 30,38 60,52 85,75 70,96 40,100 15,82 35,56 70,38 82,14",
        "curve 50,0 24,12 24,36 50,47 76,36 76,12 50,0; curve 50,47 15,60 15,88 50,100 85,88 85,60 50,47",
        "curve 88,5 50,2 30,18 42,40 62,60 65,85 42,100 20,85 35,60 65,40 90,10",
        "curve 72,8 40,0 28,20 50,45 72,72 60,98 35,94 30,72 52,46 74,24 65,4",
    ),
    9: (
        "curve 80,25 60,3 25,8 14,32 35,50 65,45 80,25; line 80,25 72,100",
        "curve 78,15 50,0 20,15 20,40 50,50 78,30 80,10; curve 80,10 82,50 70,85 40,100 15,88",
        "curve 82,12 50,2 22,25 30,45 60,40 82,12; curve 82,12 70,50 50,100",
        "curve 75,10 45,0 20,20 28,42 58,42 78,20 76,6 76,50 72,100",
    ),
}


def segments(glyph: str, per_span: int = 5) -> np.ndarray:
    """The glyph as straight pieces, `per_span` between two points: float32 [count, 2 ends, xy] in 0..1."""
    pieces = []
    for stroke in glyph.split(";"):
        kind, *points = stroke.split()
        path = np.array([point.split(",") for point in points], dtype=np.float32) / 100
        path = {"curve": _catmull_rom, "line": _subdivide}[kind](path, per_span)
        pieces.append(np.stack([path[:-1], path[1:]], axis=1))
    return np.concatenate(pieces)


def _catmull_rom(points: np.ndarray, per_span: int) -> np.ndarray:
    """Points of the uniform Catmull-Rom spline through `points`; the ends are continued by reflection."""
    extended = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, per_span, endpoint=False, dtype=np.float32)[:, None]
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
    spans = [0.5 * sum(w * extended[i + j] for j, w in enumerate(weights)) for i in range(len(extended) - 3)]
    return np.concatenate([*spans, points[-1:]]).astype(np.float32)


def _subdivide(points: np.ndarray, per_span: int) -> np.ndarray:
    """Points along straight spans, so that a warp can bend them."""
    t = np.linspace(0, 1, per_span, endpoint=False, dtype=np.float32)[:, None]
    spans = [a + t * (b - a) for a, b in zip(points[:-1], points[1:])]
    return np.concatenate([*spans, points[-1:]]).astype(np.float32)
