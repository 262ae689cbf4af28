"""Values of every ONNX type for people, programs and files: strings, sequences and maps besides tensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from cli.report import plain, shape_text

SHOWN = 8
"""Elements of a small tensor, a sequence or a map that are shown."""


def describe(value: Any) -> str:
    """The kind of a value in a few words: "1x3 float32", "sequence of 2: 4 int64, 5 int64", "map of 3"."""
    if value is None:
        return "none"
    if isinstance(value, np.ndarray):
        return f"{shape_text(value.shape)} {'string' if value.dtype.kind in 'OSU' else value.dtype}"
    if isinstance(value, (list, tuple)):
        parts = [describe(element) for element in value[:SHOWN]]
        if len(set(parts)) == 1 and len(value) <= SHOWN:
            parts = [parts[0]] + (["each"] if len(value) > 1 else [])
            return f"sequence of {len(value)}: {' '.join(parts)}"
        more = ", …" if len(value) > SHOWN else ""
        return f"sequence of {len(value)}" + (f": {', '.join(parts)}{more}" if parts else "")
    if isinstance(value, dict):
        return f"map of {len(value)}"
    return type(value).__name__


def structure(value: Any) -> dict[str, Any]:
    """The same for programs: shape and dtype of a tensor, elements of a sequence, entries of a map."""
    if isinstance(value, np.ndarray):
        text = value.dtype.kind in "OSU"
        summary: dict[str, Any] = {
            "shape": list(value.shape),
            "dtype": "string" if text else str(value.dtype),
        }
        if text and value.size <= SHOWN:
            summary["values"] = [str(text) for text in value.reshape(-1)]
        return summary
    if isinstance(value, (list, tuple)):
        elements = [structure(element) for element in value[:SHOWN]]
        return {"type": "sequence", "length": len(value), "elements": elements}
    if isinstance(value, dict):
        shown = dict(list(value.items())[:SHOWN])
        return {"type": "map", "length": len(value), "entries": jsonable(shown)}
    return {"type": "none" if value is None else type(value).__name__}


def jsonable(value: Any) -> Any:
    """A value in JSON's types: arrays as nested lists, the keys of maps as strings."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): jsonable(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(element) for element in value]
    return plain(value)


def write_values(folder: Path, names: list[str], values: list[Any]) -> None:
    """Tensors of numbers as NAME.npy, those in a sequence as NAME_0.npy …, all else as NAME.json. Names that
    would be the same file get a number.
    """
    used: set[str] = set()
    for number, (name, value) in enumerate(zip(names, values)):
        stem = re.sub(r"[^\w.-]+", "_", name).strip(".") or f"output_{number}"
        while stem.lower() in used:
            stem += f"_{number}"
        used.add(stem.lower())
        _write(folder, stem, value)


def _write(folder: Path, stem: str, value: Any) -> None:
    if _is_numeric(value):
        np.save(folder / f"{stem}.npy", value, allow_pickle=False)
    elif isinstance(value, (list, tuple)) and value and all(map(_is_numeric, value)):
        digits = len(str(len(value) - 1))
        for position, element in enumerate(value):
            np.save(folder / f"{stem}_{position:0{digits}d}.npy", element, allow_pickle=False)
    else:
        text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind not in "OSU"


# ---- inputs

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "42")


def random_value(kind: str, tensor: Any, generator: np.random.Generator) -> Any:
    """A value of an ONNX type: `tensor(type)` makes its tensors; sequences and maps have two elements."""
    inner = kind[kind.index("(") + 1 : -1] if "(" in kind else ""
    if kind.startswith("optional("):
        return random_value(inner, tensor, generator)
    if kind.startswith("seq("):
        return [random_value(inner, tensor, generator) for _ in range(2)]
    if kind.startswith("map("):
        key, _, value = inner.partition(",")
        keys: tuple[Any, Any] = ("a", "b") if key == "string" else (0, 1)
        element = random_value(value, lambda of: tensor(of, ()), generator)
        return {k: element.item() if isinstance(element, np.ndarray) else element for k in keys}
    return tensor(kind)


def random_strings(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A tensor of words."""
    result = np.empty(shape, object)
    for index in np.ndindex(*shape):
        result[index] = WORDS[int(generator.integers(len(WORDS)))]
    return result


def value_of_json(kind: str, content: Any) -> Any:
    """JSON as a value of an ONNX type: nested lists for tensors, lists for sequences, objects for maps, null.
    ValueError or TypeError where it is none.
    """
    from tinyinfer.runtime.signature import dtype_of, numpy_dtype

    inner = kind[kind.index("(") + 1 : -1] if "(" in kind else ""
    if kind.startswith("optional("):
        return None if content is None else value_of_json(inner, content)
    if kind.startswith("seq("):
        if not isinstance(content, list):
            raise ValueError(f"a {kind} is a list")
        return [value_of_json(inner, element) for element in content]
    if kind.startswith("map("):
        if not isinstance(content, dict):
            raise ValueError(f"a {kind} is an object")
        key = int if not inner.startswith("string") else str
        return {key(name): element for name, element in content.items()}
    return np.array(content, dtype=numpy_dtype(dtype_of(kind) or "object"))
