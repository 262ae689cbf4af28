"""What a model file holds: its operators and weights, counted without reading any weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from onnx import NodeProto, TensorProto

from tinyinfer.frontend.onnx.model import OnnxModel
from tinyinfer.frontend.onnx.scope import subgraphs


@dataclass(frozen=True)
class Weights:
    """The initializers and Constant tensors of a model; types in ONNX's words."""

    tensors: int
    parameters: int
    bytes_by_dtype: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.bytes_by_dtype.values())


def _node_lists(model: OnnxModel) -> Iterator[tuple[Iterable[NodeProto], Iterable[TensorProto]]]:
    """The nodes and initializers of the graph, its subgraphs, and the functions of the model."""
    graph = model.proto.graph
    sparse = [s.values for s in graph.sparse_initializer]
    stack: list[tuple[Iterable[NodeProto], list[TensorProto]]] = [(graph.node, [*graph.initializer, *sparse])]
    stack += [(function.node, []) for function in model.proto.functions]
    while stack:
        nodes, held = stack.pop()
        yield nodes, held
        for node in nodes:
            stack += [(inner.node, list(inner.initializer)) for inner in subgraphs(node)]


def count_operators(model: OnnxModel) -> Counter[str]:
    """How often each operator stands in the file; those of other domains than ONNX's own with theirs."""
    found: Counter[str] = Counter()
    for nodes, _ in _node_lists(model):
        for node in nodes:
            domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
            found[domain + node.op_type] += 1
    return found


def count_weights(model: OnnxModel) -> Weights:
    """The number and size of the weights."""
    elements, tensors = 0, 0
    sizes: Counter[str] = Counter()
    for nodes, held in _node_lists(model):
        constants = [a.t for n in nodes if n.op_type == "Constant" for a in n.attribute if a.HasField("t")]
        for tensor in (*held, *constants):
            count = prod(tensor.dims)
            known = tensor.data_type in TensorProto.DataType.values()
            dtype = TensorProto.DataType.Name(tensor.data_type).lower() if known else "unknown"
            elements += count
            tensors += 1
            sizes[dtype] += (count * _bits(dtype) + 7) // 8
    return Weights(tensors, elements, dict(sizes.most_common()))


_BITS = {"float": 32, "double": 64, "bool": 8, "string": 0, "undefined": 0, "unknown": 0, "complex64": 64}


def _bits(dtype: str) -> int:
    """Size of one element by ONNX's name of the type: the first digits in it, where no table has it."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = ""
    for letter in dtype:
        if letter.isdigit():
            digits += letter
        elif digits:
            break
    return int(digits or 0)
