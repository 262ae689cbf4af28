"""The engines: one function each, from a model file and a number of threads to a function that runs it.

An engine is imported only inside its function, so that a worker holds one engine and nothing of another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
Open = Callable[[str, int], Run]


def _tinyinfer() -> Open:
    import tinyinfer

    def open_model(path: str, threads: int) -> Run:
        options = tinyinfer.SessionOptions()
        options.intra_op_num_threads = threads
        session = tinyinfer.InferenceSession(path, options)
        return lambda feeds: session.run(None, feeds)

    return open_model


def _onnxruntime() -> Open:
    import onnxruntime

    def open_model(path: str, threads: int) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, feeds)

    return open_model


ENGINES: dict[str, Callable[[], Open]] = {"tinyinfer": _tinyinfer, "onnxruntime": _onnxruntime}
"""Name (also of the package) → importer, which imports the engine and returns what opens a model."""


def use_cache(folder: Path) -> None:
    """Make `folder` this process's cache of compiled kernels; to be called before an engine is imported."""
    os.environ["TINYINFER_CACHE"] = str(folder)


def version_of(engine: str) -> str:
    """The version of the engine's package, also where that is only a source folder; or "not installed"."""
    try:
        return version(engine)
    except PackageNotFoundError:
        if find_spec(engine) is None:
            return "not installed"
        return str(getattr(import_module(engine), "__version__", "of unknown version"))
