"""ADD of a MUL as one MULACC, for devices that do both in one instruction. Runs after all other passes."""

from __future__ import annotations

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import is_float
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.rewrite import Users, joined, rewrite


def fuse_multiply_add(graph: Graph) -> Graph:
    """`a·b + c` of floats as MULACC(a, b, c) where nothing else uses the product and no rounding to integers
    depends on it."""
    return rewrite(graph, {"ADD": (_multiply_add,)})


def _multiply_add(x: Node, users: Users) -> Node | None:
    if not is_float(x.dtype) or users.decides_step(x):
        return None
    for product, other in (x.inputs, x.inputs[::-1]):
        if product.op == "MUL" and users.single(product):
            return build.elementwise("MULACC", *product.inputs, other, origin=joined(product))
    return None
