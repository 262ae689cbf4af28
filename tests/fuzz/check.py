"""One mutant: it must load, import, compile and run, or be refused with an error that is documented."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np

from tinyinfer import InferenceSession
from tinyinfer.errors import TinyInferError
from tinyinfer.frontend.onnx import load_model
from tinyinfer.frontend.onnx.trace import start
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.limits import Limits

LIMITS = Limits(
    max_nodes=20_000, constant_elements=1 << 20, loop_trips=1000, max_bytes=1 << 28, compile_seconds=8
)
MOST = 1 << 16
"""Elements of the largest array that is fed."""

OPEN = 2
"""What an open dimension is."""


class Skip(Exception):
    """The mutant asks for feeds that are too large to be worth making."""


def check(content: bytes, run: bool) -> str | None:
    """What is wrong with how a mutant is handled, or None. With `run`, it is compiled and run."""
    try:
        model = load_model(content, LIMITS)
        start(model, {v.name: _signature(v) for v in model.inputs})
        if run:
            _run(content, model)
    except Skip:
        return None
    except TinyInferError as error:
        return None if str(error) else f"an error without words: {type(error).__name__}"
    except BaseException as error:
        return _finding(error)
    return None


def _run(content: bytes, model: Any) -> None:
    session = InferenceSession(content, providers=["CPU"], limits=LIMITS)
    feeds = {}
    for spec in model.inputs:
        if spec.dtype in ("", "object"):
            raise Skip
        feeds[spec.name] = _feed(spec)
    for _ in range(3):  # twice interpreted, if it is small, then by native code
        session.run(None, feeds)


def _feed(spec: Any) -> np.ndarray:
    shape = _shape(spec)
    generator = np.random.default_rng(5)
    if "float" in spec.dtype:
        return (generator.random(shape) * 4 - 1).astype(numpy_dtype(spec.dtype))
    return np.asarray(generator.integers(-4, 5, shape)).astype(numpy_dtype(spec.dtype))


def _shape(spec: Any) -> tuple[int, ...]:
    shape = tuple(d if isinstance(d, int) else OPEN for d in spec.shape or ())
    if np.prod(shape, dtype=object) > MOST:
        raise Skip
    return shape


def _signature(spec: Any) -> Any:
    shape = tuple(d if isinstance(d, int) else OPEN for d in spec.shape or ())
    if spec.onnx_type.startswith("seq("):
        return ("list", (("float32", (2, 3)), ("float32", (2, 3))))
    if spec.onnx_type.startswith("optional("):
        return None
    if spec.onnx_type.startswith("map("):
        return "object"
    return ("string" if spec.dtype == "object" else spec.dtype, shape)


def _finding(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "tinyinfer" in f.filename] or frames
    where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(own[-4:]))
    return f"{type(error).__name__}: {str(error)[:160]} at {where}"
