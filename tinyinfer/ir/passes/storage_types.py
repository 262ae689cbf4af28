"""Narrow and complex types become what holds them in memory, so that devices only meet plain dtypes.

Inputs, literals and outputs keep their bytes. A narrow value is its code (`ir.dtypes`): movement and choice
act on codes, arithmetic is done in the wider type of `computing_dtype` and rounded back after each op. A
complex value is a plain one with an axis more, at the end: the real and the imaginary part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.build import cast, elementwise
from tinyinfer.ir.dtypes import (
    COMPLEX,
    FLOAT_FORMATS,
    NARROW,
    NARROW_INTEGERS,
    PLAIN,
    code_mask,
    codes,
    numpy_dtype,
    storage_dtype,
)
from tinyinfer.ir.index import index
from tinyinfer.ir.loop import loop_node, loop_output
from tinyinfer.ir.narrow import narrow, truncate, widen
from tinyinfer.ir.node import Graph, Literal, LoopBody, Node, ViewMap, node, output_axis
from tinyinfer.ir.passes.rewrite import LEAVES
from tinyinfer.ir.passes.widen import widen_sums

REPRESENTABLE = frozenset(("NEG", "ABS", "MAX", "MIN", "FLOOR", "CEIL", "ROUND", "TRUNC"))
"""Ops that give no value which their operands' type lacks: nothing is rounded after them."""


def use_storage_types(graph: Graph) -> Graph:
    """The graph over plain dtypes. Its inputs and outputs have the bytes, names and order that they had.

    ValueError for arithmetic on complex numbers, which no ONNX operator asks for.
    """
    if _is_plain(graph):
        return graph
    graph = widen_sums(graph)
    stored: dict[int, Node] = {}
    inputs: dict[str, Node] = {}
    for name, x in graph.inputs.items():
        inputs[name] = stored[id(x)] = _input(x)
        if x.dtype in NARROW and code_mask(x.dtype) < 0xFF:
            # a user's bytes may hold anything in the bits that the type does not have
            stored[id(x)] = _masked(inputs[name], x.dtype)
    for x in graph.nodes():
        if id(x) not in stored:
            stored[id(x)] = _stored(x, [stored[id(n)] for n in x.inputs])
            _inherit(stored[id(x)], x)
    return Graph(inputs, {name: stored[id(x)] for name, x in graph.outputs.items()}, graph.name)


def _is_plain(graph: Graph) -> bool:
    """Whether no value of the graph, nor of its loops' bodies, is of a narrow or complex type."""
    nodes = [*graph.nodes(), *graph.inputs.values()]
    return all(x.dtype in PLAIN for x in nodes) and all(
        _is_plain(x.attrs.graph) for x in nodes if x.op == "LOOP"
    )


def _inherit(made: Node, x: Node) -> None:
    """Nodes that were made for `x`, down to those of its operands, come from where it came from."""
    stack = [made]
    while stack:
        current = stack.pop()
        if current.op not in LEAVES and not current.origin >= x.origin:
            fresh = not current.origin
            current.origin = current.origin | x.origin
            if fresh:
                stack.extend(current.inputs)


def _input(x: Node) -> Node:
    if x.dtype in COMPLEX:
        return build.input_node(x.attrs, (*x.shape, 2), COMPLEX[x.dtype])
    return build.input_node(x.attrs, x.shape, storage_dtype(x.dtype))


def _masked(x: Node, dtype: str) -> Node:
    return elementwise("AND", x, build.full(code_mask(dtype), x.shape, x.dtype))


def _stored(x: Node, operands: list[Node]) -> Node:
    """`x` over operands that are stored."""
    if x.op == "LOOP":
        return _loop(x, operands)
    if x.op == "LOOP_OUTPUT":
        return loop_output(operands[0], x.attrs)
    if x.dtype in COMPLEX or any(n.dtype in COMPLEX for n in x.inputs):
        return _complex(x, operands)
    if x.dtype not in NARROW and all(n.dtype not in NARROW for n in x.inputs):
        return _again(x, operands)
    if x.op == "CONST":
        return _literal(x.attrs, x.shape, storage_dtype(x.dtype))
    if x.op == "VIEW":
        return _view(x, operands, int(codes(np.asarray(x.attrs.fill).astype(numpy_dtype(x.dtype)))))
    if x.op == "CONCAT":
        return node("CONCAT", operands, x.attrs, x.shape, operands[0].dtype)
    if x.op == "WHERE":
        return elementwise("WHERE", *operands)
    if x.op == "SCATTER":
        return _scatter(x, operands)
    if x.op == "BITCAST":
        # equal widths have equal codes
        return elementwise("BITCAST", operands[0], dtype=storage_dtype(x.dtype))
    if x.op == "CAST":
        return _cast(operands[0], x.inputs[0].dtype, x.dtype)
    wide = [
        widen(stored, given.dtype) if given.dtype in NARROW else stored
        for stored, given in zip(operands, x.inputs)
    ]
    if x.is_reduce:
        result = build.reduce(x.op, wide[0], x.attrs)
    else:
        result = elementwise(x.op, *wide)
    if x.dtype not in NARROW:
        return result
    return truncate(result, x.dtype) if x.op in REPRESENTABLE else narrow(result, x.dtype)


def _again(x: Node, operands: Sequence[Node]) -> Node:
    """The same op over other operands of the same shapes and dtypes."""
    if all(a is b for a, b in zip(operands, x.inputs)):
        return x
    if x.op == "VIEW":
        return _view(x, operands, x.attrs.fill)
    return node(x.op, operands, x.attrs, x.shape, x.dtype)


def _view(x: Node, operands: Sequence[Node], fill: float | int | bool) -> Node:
    if len(operands) == 1:
        return build.view(operands[0], x.attrs.indices, x.shape, x.attrs.guards, fill)
    return node("VIEW", operands, ViewMap(x.attrs.indices, x.attrs.guards, fill), x.shape, operands[0].dtype)


def _scatter(x: Node, operands: Sequence[Node]) -> Node:
    """Updates join in the wider type, and what they leave is rounded once."""
    if x.attrs.combine == "SET":
        return node("SCATTER", operands, x.attrs, x.shape, operands[0].dtype)
    base, updates = (widen(n, x.dtype) for n in operands[:2])
    made = node("SCATTER", (base, updates, *operands[2:]), x.attrs, x.shape, base.dtype)
    return narrow(made, x.dtype)


def _loop(x: Node, operands: Sequence[Node]) -> Node:
    """The loop over stored values, its body over stored types."""
    body: LoopBody = x.attrs
    stored = use_storage_types(body.graph)
    inputs, outputs = tuple(stored.inputs.values()), tuple(stored.outputs.values())
    return loop_node(replace(body, inputs=inputs, outputs=outputs), operands)


def _literal(literal: Literal, shape: tuple[int, ...], dtype: str) -> Node:
    """A literal's bytes as `dtype`; one whose identity is known keeps it, and a large one is read late."""
    if literal.dtype in COMPLEX:
        def array() -> np.ndarray:
            return np.ascontiguousarray(literal.array).view(dtype).reshape(shape)
    else:
        def array() -> np.ndarray:
            return codes(literal.array)

    if isinstance(literal.key, int):
        return build.constant(Literal(array(), literal.name))
    key = (literal.key, "stored")
    return build.constant(Literal(None, literal.name, array, shape, dtype, key))


def _cast(code: Node, source: str, target: str) -> Node:
    if source not in NARROW:
        return narrow(code, target)
    if target == "bool":
        return _is_nonzero(code, source)
    value = widen(code, source)
    return narrow(value, target) if target in NARROW else cast(value, target)


def _is_nonzero(code: Node, dtype: str) -> Node:
    """Whether a code means another number than 0; subnormal numbers do, though devices count them as 0."""
    form = FLOAT_FORMATS.get(dtype)
    if form is not None and not form.unsigned_zero:
        code = elementwise("AND", code, build.full(form.sign - 1, code.shape, code.dtype))
    elif form is None and dtype not in NARROW_INTEGERS:
        return build.full(True, code.shape, "bool")
    return elementwise("CMPNE", code, build.full(0, code.shape, code.dtype))


# ---- complex numbers


def _complex(x: Node, operands: list[Node]) -> Node:
    """Movement, choice and bits of complex numbers."""
    shape = (*x.shape, 2)
    if x.op == "CONST":
        return _literal(x.attrs, shape, COMPLEX[x.dtype])
    if x.op == "VIEW":
        return _complex_view(x, operands)
    if x.op == "CONCAT":
        return node("CONCAT", operands, x.attrs, shape, operands[0].dtype)
    if x.op == "WHERE":
        return elementwise("WHERE", _paired(operands[0]), *operands[1:])
    if x.op == "SCATTER" and x.attrs.combine == "SET":
        part = index(output_axis(len(x.inputs[1].shape), 2))
        places = replace(x.attrs, indices=(*x.attrs.indices, part))
        slots = map(_paired, operands[2:])
        return node("SCATTER", (*operands[:2], *slots), places, shape, operands[0].dtype)
    if x.op == "BITCAST":
        return _complex_bits(x, operands[0])
    raise ValueError(f"{x.op} of complex numbers")


def _paired(x: Node) -> Node:
    """`x` repeated along a last axis of two."""
    return build.expand(build.reshape(x, (*x.shape, 1)), (*x.shape, 2))


def _complex_view(x: Node, operands: list[Node]) -> Node:
    fill = complex(x.attrs.fill)
    part = index(output_axis(len(x.shape), 2))
    slots = [_paired(slot) for slot in operands[1:]]

    def filled(value: float) -> Node:
        made = ViewMap((*x.attrs.indices, part), x.attrs.guards, value)
        if slots:
            return node("VIEW", (operands[0], *slots), made, (*x.shape, 2), operands[0].dtype)
        return build.view(operands[0], made.indices, (*x.shape, 2), made.guards, value)

    if fill.real == fill.imag:
        return filled(fill.real)
    is_real = build.position(part, (*x.shape, 2), "int64")
    is_real = elementwise("CMPEQ", is_real, build.full(0, is_real.shape, is_real.dtype))
    return elementwise("WHERE", is_real, filled(fill.real), filled(fill.imag))


def _complex_bits(x: Node, operand: Node) -> Node:
    """complex64 as 64 bits and back: the real part is the low half."""
    if x.dtype in COMPLEX:
        whole = _paired(elementwise("BITCAST", operand, dtype="uint64"))
        shift = build.position(index(output_axis(len(x.shape), 2)) * 32, whole.shape, "uint64")
        half = cast(elementwise("SHR", whole, shift), "uint32")
        return elementwise("BITCAST", half, dtype="float32")
    halves = cast(elementwise("BITCAST", operand, dtype="uint32"), "uint64")
    rank = len(x.shape)
    low, high = (
        build.reshape(
            build.shrink(halves, [0] * rank + [part], [*x.shape, part + 1]), x.shape
        )
        for part in (0, 1)
    )
    high = elementwise("SHL", high, build.full(32, high.shape, high.dtype))
    return elementwise("BITCAST", elementwise("OR", low, high), dtype=x.dtype)
