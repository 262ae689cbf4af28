"""The models that are mutated: one for each op family and version, and small real models."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper

LARGEST = 300_000
"""Bytes of the largest model that is mutated."""

REAL = 12
"""How often each real model counts, there being many more models of one node."""


def corpus() -> list[bytes]:
    """Every seed, always in the same order."""
    seeds = [*_node_tests(), *_guessed()]
    return seeds + [m for m in _real_models() for _ in range(REAL)]


def _node_tests() -> Iterator[bytes]:
    """The models of the onnx package's node tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    for case in sorted(cases, key=lambda c: c.name):
        if case.model_dir is None:
            content = case.model.SerializeToString()
        else:
            content = (Path(case.model_dir) / "model.onnx").read_bytes()
        if len(content) <= LARGEST:
            yield content


def _real_models() -> Iterator[bytes]:
    """The smaller ones of the collection of models beside the repository, if it is there."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "models"
    for path in sorted(folder.glob("*.onnx")):
        if path.stat().st_size <= LARGEST:
            yield path.read_bytes()


_SHAPES = ((), (1,), (3,), (2, 3), (2, 4, 8), (1, 4, 6, 6))
_ATTRIBUTE = re.compile(r"ctx\.(integer|integers|flag|number|numbers|string|strings)\(\s*\"(\w+)\"")


def _guessed() -> Iterator[bytes]:
    """Nodes of the operators that are not in ONNX's own tests, most of them wrong: a few inputs of random
    shapes and types, and the attributes that the code asks for.
    """
    import tinyinfer.frontend.onnx  # noqa: F401  (fills the table)
    from tinyinfer.frontend.onnx.op_table import OP_TABLE

    generator = np.random.default_rng(11)
    for (domain, name), entries in sorted(OP_TABLE.items()):
        if domain == "ai.onnx":
            continue
        entry = entries[-1]
        module = inspect.getmodule(entry.function)
        text = inspect.getsource(module) if module is not None else ""
        asked = sorted(set(_ATTRIBUTE.findall(inspect.getsource(entry.function)) or _ATTRIBUTE.findall(text)))
        for _ in range(6):
            yield _guess(name, domain, entry.inputs, asked, generator).SerializeToString()


def _guess(
    name: str,
    domain: str,
    inputs: tuple[int, int | None],
    asked: list[tuple[str, str]],
    generator: np.random.Generator,
) -> ModelProto:
    most = inputs[1] if inputs[1] is not None else inputs[0] + 2
    count = int(generator.integers(inputs[0], most + 1))
    elements = [1, 1, 1, 7, 6, 2, 3, 10]
    shape = _SHAPES[generator.integers(len(_SHAPES))]
    declared = []
    for number in range(count):
        if generator.random() < 0.3:
            shape = _SHAPES[generator.integers(len(_SHAPES))]
        kind = int(elements[generator.integers(len(elements))])
        declared.append(helper.make_tensor_value_info(f"x{number}", kind, shape))
    attributes = {}
    for kind_name, attribute in asked:
        if generator.random() < 0.5:
            small = [int(v) for v in generator.integers(-1, 5, 4)]
            attributes[attribute] = {
                "integer": small[0],
                "flag": small[0] & 1,
                "number": small[0] / 2,
                "string": "NONE",
                "integers": small[: 1 + small[1] % 4],
                "numbers": [v / 2 for v in small],
                "strings": ["a", "b"],
            }[kind_name]
    node = helper.make_node(
        name, [v.name for v in declared], ["y0", "y1"][: 1 + int(generator.random() < 0.2)], domain=domain
    )
    for key, value in attributes.items():
        node.attribute.append(helper.make_attribute(key, value))
    graph = helper.make_graph([node], "g", declared, [onnx.ValueInfoProto(name=n) for n in node.output])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
