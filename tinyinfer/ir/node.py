"""Nodes of the three-op IR: frozen and hash-consed, so equal computations are the same object.

| op | inputs | attributes | meaning |
|---|---|---|---|
| INPUT | – | name | a value fed at run time |
| CONST | – | Literal | a value known at compile time |
| IOTA | – | index over output axes | an integer computed from the position |
| any of ops.ELEMENTWISE | 1–3 of one shape | dtype (CAST, BITCAST) | elementwise |
| SUM MAX MIN PROD | 1 | axes | reduce over `axes`, which vanish from the shape |
| VIEW | source, index inputs… | ViewMap | movement, indexed read: each output reads one source position |
| CONCAT | 1 or more | axis | movement: the inputs side by side |
| SCATTER | base, updates, index inputs… | ScatterMap | reduce by index: an update goes to a place of base |
| LOOP | see `LoopBody` | LoopBody | control: a graph run repeatedly; its value is the number of iterations |
| LOOP_OUTPUT | the LOOP | number | what the loop leaves: final carried values, then stacked ones |

A `ViewMap` names its output axes `o0, o1, …` (`output_axis`); `Slot(i, lo, hi)` in it is the value of index
input `i` at the same output position. A position whose guards fail (`0 <= index < size`) reads `fill`
instead.

A `ScatterMap` is the transpose of that: over the axes and index inputs of the *updates* it gives the position
of the base that each update goes to. An update whose guards fail is dropped. `combine` says what happens to
what is there: SET replaces it (the last update in row-major order wins), SUM, PROD, MAX and MIN join it, one
update after another in row-major order.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinyinfer.budget import check_time
from tinyinfer.ir.index import Axis, Index
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE

SMALL_LITERAL = 64
"""Literals of at most this many elements compare by value; larger ones by identity."""


class Literal:
    """A constant array. Large ones may be loaded late: `load` gives the array, `key` identifies the content.
    """

    __slots__ = ("shape", "dtype", "name", "_array", "_load", "key", "__weakref__")

    def __init__(
        self,
        array: np.ndarray | None = None,
        name: str = "",
        load: Any = None,
        shape: Any = None,
        dtype: Any = None,
        key: Any = None,
    ):
        self._array, self._load, self.name = array, load, name
        if array is not None:
            array = np.asarray(array)
            self._array = array
            shape, dtype = array.shape, array.dtype.name
            if key is None and array.size <= SMALL_LITERAL:
                key = (array.shape, dtype, array.tobytes())
        self.shape, self.dtype = tuple(int(d) for d in shape), str(dtype)
        self.key = key if key is not None else id(self)

    @property
    def array(self) -> np.ndarray:
        """The content, a numpy array of `shape` and `dtype`; it must not be written to."""
        return self._array if self._array is not None else self._load()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Literal({self.name or self.dtype + str(list(self.shape))})"


@dataclass(frozen=True)
class ViewMap:
    """Where each output position of a VIEW reads: one index per source axis, over axes `o0 …` and slots."""

    indices: tuple[Index, ...]
    guards: tuple[tuple[Index, int], ...] = ()
    fill: float | int | bool = 0


COMBINATIONS = ("SET", "SUM", "PROD", "MAX", "MIN")


@dataclass(frozen=True)
class ScatterMap:
    """Where each update of a SCATTER goes: an index per base axis, over the update axes `o0 …` and slots."""

    indices: tuple[Index, ...]
    guards: tuple[tuple[Index, int], ...] = ()
    combine: str = "SET"


UNBOUNDED = (1 << 63) - 1
"""`LoopBody.steps` of a loop that only its condition or its count ends."""


@dataclass(frozen=True)
class LoopBody:
    """What a LOOP repeats: a closed graph, its INPUT nodes being `inputs` and its results `outputs`.

    Inputs of the body, and of the LOOP node in the same order but for the first:

    * the iteration number (int64 scalar), which only the body has;
    * `carried` values, given to the LOOP as they are before the first iteration;
    * one row per iteration of each scanned value, which the LOOP gets with a leading axis of `steps`;
      `scanned` says of each whether the last row comes first;
    * captured values, the same in every iteration.

    After these the LOOP takes the trip count (int64 scalar) if it is `counted`, then the condition to enter
    (bool scalar) if it is `conditional`. It runs `steps` times at most, `count` times if that is less, and as
    long as the condition holds.

    Outputs of the body: the carried values for the next iteration, one row of each stacked value, the
    condition to go on if it is `conditional`. LOOP_OUTPUT numbers go through the carried and stacked ones: a
    stacked value is `[steps, *row]`, rows that no iteration wrote are zero, and `stacked` says of each
    whether the first iteration writes the last row.
    """

    steps: int
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    carried: int
    scanned: tuple[bool, ...] = ()
    stacked: tuple[bool, ...] = ()
    counted: bool = False
    conditional: bool = False

    @property
    def graph(self) -> Graph:
        """The body as a graph; results are called by their number."""
        return Graph(
            {x.attrs: x for x in self.inputs}, {str(i): x for i, x in enumerate(self.outputs)}, "body"
        )

    @property
    def captured(self) -> tuple[Node, ...]:
        """The body's inputs that are the same in every iteration."""
        return self.inputs[1 + self.carried + len(self.scanned) :]


@cache
def output_axis(position: int, size: int) -> Axis:
    """The axis that view maps and IOTA use for output dimension `position`."""
    return Axis(f"o{position}", size)


class Node:
    """One value of the graph. Create nodes with `node()` or, better, with the functions of `ir.build`."""

    __slots__ = ("op", "inputs", "attrs", "shape", "dtype", "origin", "_hash", "__weakref__")

    op: str
    inputs: tuple[Node, ...]
    attrs: Any
    shape: tuple[int, ...]
    dtype: str
    origin: frozenset[str]

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for dimension in self.shape:
            total *= dimension
        return total

    @property
    def is_elementwise(self) -> bool:
        return self.op in ELEMENTWISE and not self.is_reduce

    @property
    def is_reduce(self) -> bool:
        # MAX and MIN name an elementwise op of two inputs and a reduce op of one
        return self.op in REDUCE and len(self.inputs) == 1

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The view-map axes of this node's shape."""
        return tuple(output_axis(i, d) for i, d in enumerate(self.shape))

    def __repr__(self) -> str:
        return f"<{self.op} {self.dtype}{list(self.shape)}>"


_INTERNED: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()


_made = 0


def node(
    op: str,
    inputs: Iterable[Node] = (),
    attrs: Any = None,
    shape: Iterable[int] = (),
    dtype: str = "float32",
    origin: Iterable[str] = (),
) -> Node:
    """The node with these fields; the same object for the same fields. `origin` joins what was there before.
    """
    inputs, shape = tuple(inputs), tuple(shape)
    key = (op, tuple(map(id, inputs)), attrs, shape, dtype)
    found = _INTERNED.get(key)
    if found is not None:
        if origin:
            found.origin = found.origin | frozenset(origin)
        return found
    global _made
    _made += 1
    if not _made & 1023:
        check_time()
    made = Node()
    made.op, made.inputs, made.attrs, made.shape, made.dtype = op, inputs, attrs, shape, dtype
    made.origin = frozenset(origin)
    _INTERNED[key] = made
    return made


@dataclass
class Graph:
    """A model: named inputs and outputs over nodes. `inputs` are INPUT nodes in the order of the model's
    signature."""

    inputs: dict[str, Node]
    outputs: dict[str, Node]
    name: str = ""

    def nodes(self) -> list[Node]:
        """Every node once, inputs before users."""
        return topological_order(self.outputs.values())


def topological_order(roots: Iterable[Node]) -> list[Node]:
    """Every node that `roots` need, each once, inputs before users; iterative, so depth does not matter."""
    order: list[Node] = []
    seen: set[int] = set()
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            current, position = stack.pop()
            if position == 0:
                if id(current) in seen:
                    continue
                seen.add(id(current))
            if position < len(current.inputs):
                stack.append((current, position + 1))
                following = current.inputs[position]
                if id(following) not in seen:
                    stack.append((following, 0))
            else:
                order.append(current)
    return order
