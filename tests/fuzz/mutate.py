"""Mutations of an ONNX model: of its bytes, and of what they say."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

INTEGERS = (
    0, 1, -1, 2, -2, 3, 7, 8, 31, 32, 64, 127, 255, 1024, 65536, -1000, 10**6, 1 << 20,
    (1 << 31) - 1, 1 << 31, -(1 << 31),
    1 << 32, 1 << 40, (1 << 53) + 1, (1 << 62), (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 3e9)
STRINGS = (b"", b"NOTSET", b"SAME_UPPER", b"VALID", b"linear", b"cubic", b"reflect", b"ij,jk->ik",
           b"...i,i...->", b"none", b"add", b"(a*)*b", b"\xff\xfe", b"a" * 300, b"sum", b"y")  # fmt: skip


def mutant(seed: bytes, others: Sequence[bytes], generator: random.Random) -> bytes:
    """`seed` changed in one way or several."""
    if generator.random() < 0.25:
        return _bytes(seed, generator)
    model = ModelProto()
    try:
        model.ParseFromString(seed)
    except DecodeError:
        return seed
    for _ in range(generator.choice((1, 1, 1, 2, 3, 5))):
        generator.choice(_STRUCTURED)(model, others, generator)
    content = model.SerializeToString()
    return _bytes(content, generator) if generator.random() < 0.05 else content


def _bytes(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    if not changed:
        return b""
    for _ in range(generator.choice((1, 1, 2, 4, 8))):
        place = generator.randrange(len(changed))
        kind = generator.randrange(6)
        if kind == 0:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            changed[place] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        elif kind == 2:
            del changed[place : place + generator.randrange(1, 9)]
        elif kind == 3:
            changed[place:place] = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 5)))
        elif kind == 4:
            changed[place:place] = changed[place : place + generator.randrange(1, 65)]
        elif generator.random() < 0.3:
            del changed[place:]
        if not changed:
            break
    return bytes(changed)


# ---- what a model says

Mutation = Callable[[ModelProto, Sequence[bytes], random.Random], None]


def _graphs(model: ModelProto) -> list[GraphProto]:
    found, stack = [], [model.graph]
    while stack:
        graph = stack.pop()
        found.append(graph)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append(attribute.g)
    return found


def _nodes(model: ModelProto) -> list[NodeProto]:
    return [n for g in _graphs(model) for n in g.node] + [n for f in model.functions for n in f.node]


def _some_graph(model: ModelProto, generator: random.Random) -> GraphProto:
    return generator.choice(_graphs(model))


def _some_node(model: ModelProto, generator: random.Random) -> NodeProto | None:
    nodes = _nodes(model)
    return generator.choice(nodes) if nodes else None


def _tensors(model: ModelProto) -> list[TensorProto]:
    found = [t for g in _graphs(model) for t in g.initializer]
    found += [a.t for n in _nodes(model) for a in n.attribute if a.HasField("t")]
    return found


def _names(model: ModelProto) -> list[str]:
    names = [v.name for g in _graphs(model) for v in (*g.input, *g.output)]
    names += [n for node in _nodes(model) for n in (*node.input, *node.output)]
    return names or [""]


def change_attribute(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    attributes = [a for n in _nodes(model) for a in n.attribute]
    if not attributes:
        return
    attribute = generator.choice(attributes)
    kind = generator.randrange(10)
    if kind == 0:
        attribute.name = generator.choice(("axis", "axes", "k", "perm", "to", "value", "mode", "body", ""))
    elif kind == 1:
        attribute.type = generator.randrange(15)
    elif attribute.type == AttributeProto.INT:
        attribute.i = _integer(generator)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = generator.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = generator.choice(STRINGS)
    elif attribute.type == AttributeProto.INTS:
        _list(attribute.ints, lambda: _integer(generator), generator)
    elif attribute.type == AttributeProto.FLOATS:
        _list(attribute.floats, lambda: generator.choice(FLOATS), generator)
    elif attribute.type == AttributeProto.STRINGS:
        _list(attribute.strings, lambda: generator.choice(STRINGS), generator)


def _integer(generator: random.Random) -> int:
    return generator.choice(INTEGERS) if generator.random() < 0.7 else generator.randrange(-4, 20)


def _list(values, make, generator: random.Random) -> None:
    kind = generator.randrange(4)
    if kind == 0 and values:
        del values[generator.randrange(len(values))]
    elif kind == 1:
        values.append(make())
    elif kind == 2:
        del values[:]
    elif values:
        values[generator.randrange(len(values))] = make()


def drop_attribute(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    node = _some_node(model, generator)
    if node is not None and node.attribute:
        del node.attribute[generator.randrange(len(node.attribute))]


def add_attribute(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    node = _some_node(model, generator)
    attributes = [a for n in _nodes(_other(others, generator)) for a in n.attribute]
    if node is not None and attributes:
        node.attribute.append(generator.choice(attributes))


def change_input(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    node = _some_node(model, generator)
    if node is None:
        return
    kind = generator.randrange(5)
    if kind == 0 and node.input:
        node.input[generator.randrange(len(node.input))] = ""
    elif kind == 1 and len(node.input) > 1:
        a, b = generator.sample(range(len(node.input)), 2)
        node.input[a], node.input[b] = node.input[b], node.input[a]
    elif kind == 2 and node.input:
        del node.input[generator.randrange(len(node.input))]
    elif kind == 3:
        node.input.append(generator.choice(_names(model)))
    elif node.input:
        node.input[generator.randrange(len(node.input))] = generator.choice(_names(model))


def change_output(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    node = _some_node(model, generator)
    if node is None:
        return
    kind = generator.randrange(3)
    if kind == 0:
        node.output.append(f"more{generator.randrange(100)}")
    elif node.output:
        number = generator.randrange(len(node.output))
        if kind == 1:
            del node.output[number]
        else:
            node.output[number] = generator.choice(("", generator.choice(_names(model))))


def change_op(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    node, other = _some_node(model, generator), _some_node(_other(others, generator), generator)
    if node is not None and other is not None:
        node.op_type, node.domain = other.op_type, other.domain


def change_opset(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    if model.opset_import:
        generator.choice(model.opset_import).version = generator.choice((*range(1, 28), -1, 1 << 40))
    if generator.random() < 0.2:
        model.ir_version = generator.choice((0, 1, 3, 4, 10, 99))


def change_shape(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    graph = _some_graph(model, generator)
    values = [*graph.input, *graph.output]
    if not values:
        return
    kind = generator.choice(values).type
    which = kind.WhichOneof("value")
    if which != "tensor_type" or generator.random() < 0.05:
        kind.Clear()
        return
    dims = kind.tensor_type.shape.dim
    change = generator.randrange(6)
    if change == 0:
        kind.tensor_type.elem_type = generator.randrange(28)
    elif change == 1 and dims:
        del dims[generator.randrange(len(dims))]
    elif change == 2:
        dims.add().dim_value = generator.choice((0, 1, 2, 5))
    elif change == 3 and dims:
        generator.choice(dims).dim_param = generator.choice("nab")
    elif change == 4:
        kind.tensor_type.ClearField("shape")
    elif dims:
        generator.choice(dims).dim_value = _integer(generator)


def change_tensor(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    tensors = _tensors(model)
    if not tensors:
        return
    tensor = generator.choice(tensors)
    kind = generator.randrange(7)
    if kind == 0:
        tensor.data_type = generator.randrange(28)
    elif kind == 1 and tensor.dims:
        tensor.dims[generator.randrange(len(tensor.dims))] = _integer(generator)
    elif kind == 2:
        tensor.dims.append(generator.choice((0, 1, 2, -1, 1 << 40)))
    elif kind == 3 and tensor.dims:
        del tensor.dims[generator.randrange(len(tensor.dims))]
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=generator.choice(("w", "../w", "/etc/passwd", "")))
    else:
        change_numbers(tensor, generator)


def change_numbers(tensor: TensorProto, generator: random.Random) -> None:
    """Extreme numbers in a tensor, which keeps its shape and type."""
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:  # an earlier mutation broke it
        return
    if array.dtype.kind not in "iuf" or not array.size or array.size > 100_000:
        return
    flat = array.reshape(-1)
    for _ in range(generator.choice((1, 1, 2, flat.size))):
        place = generator.randrange(flat.size)
        if array.dtype.kind == "f":
            with np.errstate(all="ignore"):
                flat[place] = generator.choice(FLOATS)
        else:
            limits = np.iinfo(array.dtype)
            flat[place] = min(max(_integer(generator), limits.min), limits.max)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def fix_input(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    """An input becomes an initializer, so that its value is known during the import."""
    graph = model.graph
    inputs = [v for v in graph.input if v.type.HasField("tensor_type")]
    if not inputs:
        return
    value = generator.choice(inputs)
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if any(not 0 <= d <= 64 for d in shape) or np.prod(shape, dtype=object) > 10_000:
        return
    kind = value.type.tensor_type.elem_type
    dtype = {1: "f4", 6: "i4", 7: "i8", 2: "u1", 3: "i1", 9: "?", 11: "f8", 10: "f2"}.get(kind)
    if dtype is None:
        return
    made = np.full(shape, generator.choice((0, 1, 2, 3)), dtype)
    tensor = numpy_helper.from_array(made, value.name)
    change_numbers(tensor, generator)
    graph.initializer.append(tensor)
    graph.input.remove(value)


def duplicate_node(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    graph = _some_graph(model, generator)
    if not graph.node:
        return
    copy = graph.node.add()
    copy.CopyFrom(generator.choice(graph.node[:-1]) if len(graph.node) > 1 else copy)
    if generator.random() < 0.8:
        for number in range(len(copy.output)):
            copy.output[number] = f"copy{generator.randrange(10**6)}_{number}"


def delete_node(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    graph = _some_graph(model, generator)
    if graph.node:
        del graph.node[generator.randrange(len(graph.node))]


def splice(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    """Nodes of another model between two of this one."""
    graph = _some_graph(model, generator)
    other = _other(others, generator)
    if not other.graph.node:
        return
    place = generator.randrange(len(graph.node) + 1)
    node = NodeProto()
    node.CopyFrom(generator.choice(other.graph.node))
    names = [n for n in _names(model) if n] or [""]
    for number in range(len(node.input)):
        if node.input[number]:
            node.input[number] = generator.choice(names)
    result = f"spliced{generator.randrange(10**6)}"
    for number in range(len(node.output)):
        node.output[number] = f"{result}_{number}"
    graph.node.insert(place, node)
    readers = [n for n in graph.node[place + 1 :] if n.input]
    if readers and node.output:
        reader = generator.choice(readers)
        reader.input[generator.randrange(len(reader.input))] = node.output[0]
    elif node.output:
        graph.output.add(name=node.output[0])


def rename(model: ModelProto, others: Sequence[bytes], generator: random.Random) -> None:
    graph = _some_graph(model, generator)
    values = [*graph.input, *graph.output, *graph.initializer]
    if values:
        generator.choice(values).name = generator.choice((*_names(model), "", "\0", "#0", "a/b"))


def _other(others: Sequence[bytes], generator: random.Random) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(generator.choice(others))
    except DecodeError:
        pass
    return model


_STRUCTURED: tuple[Mutation, ...] = (
    change_attribute, change_attribute, change_attribute, change_attribute, drop_attribute, add_attribute,
    change_input, change_input, change_output, change_op, change_opset, change_shape, change_shape,
    change_tensor, change_tensor, change_tensor, fix_input, fix_input, fix_input, duplicate_node,
    delete_node, splice, splice, rename,
)  # fmt: skip
