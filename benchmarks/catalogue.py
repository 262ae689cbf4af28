"""What is measured: model files by name, filled where they are kept without weights, and feeds for them."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_FOLDER = REPOSITORY.parent / "shared" / "models"
DEFAULT_NAMES = Path(__file__).with_name("models.txt")


@dataclass(frozen=True)
class InputSpec:
    """One input: numpy dtype name, shape, and one `value` or the half-open interval `low` to `high`."""

    dtype: str
    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    value: float | None = None


@dataclass(frozen=True)
class Model:
    """A model file that engines can open, and what it is fed."""

    name: str
    path: Path
    inputs: dict[str, InputSpec] = field(default_factory=dict)

    def feeds(self) -> dict[str, np.ndarray]:
        """Random feeds, the same on every machine: drawn by PCG64 from the CRC-32 of model and input name."""
        return {name: _draw(f"{self.name}/{name}", spec) for name, spec in self.inputs.items()}


def default_names() -> list[str]:
    """The names in models.txt, in its order."""
    return DEFAULT_NAMES.read_text(encoding="utf-8").split()


def find(name: str, folder: Path) -> Model:
    """The model called `name` in `folder`'s index.json, or the .onnx file at the path `name`.

    Raises LookupError for an unknown name or a model without feeds, FileNotFoundError for a missing file.
    """
    if name.endswith(".onnx"):
        return _from_file(Path(name))
    index_path = folder / "index.json"
    if not index_path.is_file():
        raise FileNotFoundError(f"{index_path} is missing; name a folder with --models, or give .onnx paths")
    entries = {entry["name"]: entry for entry in json.loads(index_path.read_text(encoding="utf-8"))}
    if name not in entries:
        raise LookupError(f"{name}: not in {index_path}")
    entry = entries[name]
    if not entry.get("test_feeds"):
        raise LookupError(f"{name}: {index_path} gives no test_feeds for it")
    specs = entry.get("input_spec") or {}
    inputs = {key: _spec(feed, specs.get(key, {})) for key, feed in entry["test_feeds"].items()}
    return Model(name, folder / entry["file"], inputs)


def filled(model: Model, scratch: Path) -> Model:
    """The same model with its weights.

    A skeleton (a model kept without weights, in a folder "skeletons") is filled into `scratch` by the fill.py
    of its index's folder, unless it is there already. Others are returned as they are.
    """
    if model.path.parent.name != "skeletons":
        return model
    target = scratch / model.path.name
    if not target.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        fill = model.path.parent.parent / "fill.py"
        subprocess.run([sys.executable, str(fill), str(model.path), str(partial)], check=True)
        partial.rename(target)
    return replace(model, path=target)


def _spec(feed: list[Any], extra: dict[str, Any]) -> InputSpec:
    dtype, shape = feed
    low, high = extra.get("range", (0.0, 1.0 if np.dtype(dtype).kind == "f" else 2.0))
    return InputSpec(dtype, tuple(shape), low, high, extra.get("value"))


def _from_file(path: Path) -> Model:
    """A model outside any index: symbolic dimensions are 1."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {}
    for value in model.graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            shape = [dimension.dim_value or 1 for dimension in tensor.shape.dim]
            inputs[value.name] = _spec([dtype.name, shape], {})
    return Model(path.stem, path.resolve(), inputs)


def _draw(seed: str, spec: InputSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if spec.value is not None:
        return np.full(spec.shape, spec.value, dtype)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode())))
    uniform = generator.random(spec.shape) * (spec.high - spec.low) + spec.low
    return (uniform if dtype.kind == "f" else np.floor(uniform)).astype(dtype)
