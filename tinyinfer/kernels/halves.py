"""What a plan stores in halves, and a graph that computes as if it did: with a switch for each such value.

Storing a value in half an image rounds it to eleven bits, and sums and arithmetic are float32. That is all
that halves change, so a processor computes what a device with half images does, up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.rewrite import transform
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.physical import PackedConstant
from tinyinfer.kernels.plan import KernelPrinter, Parameters, build_steps, held_value, title_of

SWITCH, WEIGHTS, LARGEST = "halves/on/", "halves/weights/", "halves/largest/"
"""What names of inputs and outputs that a simulation adds begin with; numbers follow."""


@dataclass(frozen=True)
class StoredHalves:
    """What lies in one image of halves: values of a graph, or one constant. `names` are ONNX names of what
    computes it, or of what reads it first; `nbytes` is the size of the image."""

    nodes: tuple[Node, ...]
    names: tuple[str, ...]
    nbytes: int

    @property
    def is_constant(self) -> bool:
        return self.nodes[0].op == "CONST"

    @property
    def title(self) -> str:
        """Its names in short."""
        text = title_of(frozenset(self.names), "an unnamed value")[0]
        return f"weights of {text}" if self.is_constant else text


def stored_halves(graph: Graph, printer: KernelPrinter, options: CompileOptions) -> list[StoredHalves]:
    """Everything that the plan of a graph, whose passes have run, stores in halves, in order of use.
    Constants in bodies of loops are not among them."""
    buffers, steps = build_steps(graph, printer, options, Parameters(), printer.machine.images)
    constants = {id(n.attrs): n for n in graph.nodes() if n.op == "CONST"}
    holding: dict[Buffer, dict[Node, None]] = {}
    for value, buffer in buffers.items():
        holding.setdefault(buffer.storage, {})[held_value(value)] = None
    found: dict[Node, StoredHalves] = {}
    seen: set[Buffer] = set()
    for step in steps:
        for argument in step.arguments:
            image = argument.image
            if image is None or image.dtype != "float16":
                continue
            if isinstance(argument, PackedConstant):
                node = constants.get(id(argument.literal))
                if node is not None and node not in found:
                    found[node] = StoredHalves((node,), step.origin, image.nbytes)
            elif argument not in seen:
                seen.add(argument)
                _add(found, tuple(holding[argument]), image.nbytes)
    return list(dict.fromkeys(found.values()))


def _add(found: dict[Node, StoredHalves], nodes: tuple[Node, ...], nbytes: int) -> None:
    """Note an image; what holds a value of another image is one with it, for a value is one or the other."""
    known = list(dict.fromkeys(found[n] for n in nodes if n in found))
    every = tuple(dict.fromkeys((*(n for item in known for n in item.nodes), *nodes)))
    names = tuple(sorted(frozenset().union(*(n.origin for n in every))))
    item = StoredHalves(every, names, nbytes + sum(x.nbytes for x in known))
    for n in every:
        found[n] = item


def simulation(graph: Graph, stored: Sequence[StoredHalves]) -> Graph:
    """The graph with a switch, a bool input, for each stored value, which rounds it where it is true. A
    constant is an input instead (`weights_of` gives what to feed). Further outputs are the largest magnitude
    of each value."""
    inputs = dict(graph.inputs)
    switches: dict[Node, Node] = {}
    weights: dict[Node, Node] = {}
    numbers: dict[Node, int] = {}
    for number, item in enumerate(stored):
        if item.is_constant:
            node = item.nodes[0]
            name = f"{WEIGHTS}{number}"
            weights[node] = inputs[name] = build.input_node(name, node.shape, node.dtype)
            continue
        name = f"{SWITCH}{number}"
        inputs[name] = switch = build.input_node(name, (), "bool")
        for node in item.nodes:
            switches[node] = switch
            numbers.setdefault(node, number)
    largest: dict[int, Node] = {}

    def replaced(old: Node, new: Node) -> Node:
        if old in weights:
            return weights[old]
        switch = switches.get(old)
        if switch is None:
            return new
        top = build.reduce("MAX", build.elementwise("ABS", new), list(range(len(new.shape))))
        known = largest.get(numbers[old])
        largest[numbers[old]] = top if known is None else build.elementwise("MAX", known, top)
        on = build.expand(build.reshape(switch, (1,) * len(new.shape)), new.shape)
        return build.elementwise("WHERE", on, build.cast(build.cast(new, "float16"), "float32"), new)

    changed = transform(graph, graph.nodes(), replaced)
    outputs = {**changed.outputs, **{f"{LARGEST}{n}": node for n, node in largest.items()}}
    return Graph(inputs, outputs, graph.name)


def weights_of(item: StoredHalves, halves: bool) -> np.ndarray:
    """What to feed for a constant of a simulation: as it is, or rounded to halves."""
    array = np.ascontiguousarray(item.nodes[0].attrs.array)
    if not halves:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)
