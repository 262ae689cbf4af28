"""One graph for a range of sizes, found by comparing the graphs of three sizes.

A graph has fixed shapes. Where one dimension of the inputs grows from run to run (the cache of a language
model), a graph for a *capacity* serves all sizes up to it: dimensions that depend on the size n are as long
as the capacity needs, n itself is an input, and what lies beyond n is masked where it could be seen. Nothing
of this is known to the importer: the graph is made from those that it gives for the sizes C, C - 1 and C -
2. They have the same nodes, and what differs between them (dimensions, offsets in views, constants) is an
affine function of n, which the third graph confirms.

Of every value it is known which positions are *valid*: those that the graph of size n has. They are given by
predicates `0 <= index < c + k·n` over its axes. A valid position only ever reads valid positions, so only
reductions have to mask. A reshape that joins a growing axis with others renumbers positions (o // n becomes
o // C), and the predicates follow through the index map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of, index, substitute
from tinyinfer.ir.node import Graph, Node, ViewMap, output_axis
from tinyinfer.ir.ops import reduce_identity

KEEPS_ZERO = frozenset(
    ("NEG", "ABS", "SQRT", "SIN", "TANH", "ERF", "FLOOR", "CEIL", "ROUND", "TRUNC", "CAST", "BITCAST")
    + ("ADD", "SUB", "MUL", "MAX", "MIN", "AND", "OR", "XOR", "MULACC")
)
"""Elementwise ops that give zero where all operands are zero."""


POSITION = "int32"
"""The dtype in which positions are compared with sizes: as wide as the floats that the answers select."""


class NotAffine(Exception):
    """The graphs differ in a way that no capacity graph covers; the message says where."""


@dataclass(frozen=True)
class Size:
    """The dimension, or other integer, `constant + slope · n`."""

    constant: int
    slope: int = 0

    def at(self, n: int) -> int:
        """Its value for n."""
        return self.constant + self.slope * n


@dataclass(frozen=True)
class Valid:
    """The predicate `0 <= place < size` over a value's axes."""

    place: Index
    size: Size


@dataclass(frozen=True)
class Value:
    """A value of the capacity graph: its node, where it is valid, and whether it is zero everywhere else."""

    node: Node
    valid: tuple[Valid, ...] = ()
    zero: bool = True


@dataclass(frozen=True)
class CapacityGraph:
    """`graph` takes the inputs at `capacity`, zero beyond what is fed, and the int64 scalar `symbol` = n.

    `inputs` and `outputs` have the true dimensions of each as functions of n.
    """

    graph: Graph
    capacity: int
    symbol: str
    inputs: dict[str, tuple[Size, ...]]
    outputs: dict[str, tuple[Size, ...]]


Triple = tuple[Node, Node, Node]


def capacity_graph(capacity: int, graphs: Sequence[Graph], symbol: str) -> CapacityGraph:
    """The capacity graph of the graphs for n = capacity, capacity - 1 and capacity - 2.

    `symbol` is a name that no input has. Raises NotAffine.
    """
    first = graphs[0]
    if any(list(g.inputs) != list(first.inputs) or list(g.outputs) != list(first.outputs) for g in graphs):
        raise NotAffine("the graphs have different signatures")
    maker = _Maker(capacity, build.input_node(symbol, (), "int64"))
    inputs = {name: _triple(graphs, "inputs", name) for name in first.inputs}
    outputs = {name: _triple(graphs, "outputs", name) for name in first.outputs}
    values = maker.values(outputs.values())
    results = {}
    for name, triple in outputs.items():
        made = values[_key(triple)]
        plain = {index(axis) for axis in made.node.axes}
        if any(v.place not in plain for v in made.valid):
            raise NotAffine(f"the output '{name}' joins a growing axis with another")
        results[name] = made.node
    nodes = {name: triple[0] for name, triple in inputs.items()}
    nodes[symbol] = maker.n
    return CapacityGraph(
        Graph(nodes, results, first.name),
        capacity,
        symbol,
        {name: maker.sizes(triple) for name, triple in inputs.items()},
        {name: maker.sizes(triple) for name, triple in outputs.items()},
    )


def _triple(graphs: Sequence[Graph], which: str, name: str) -> Triple:
    a, b, c = (getattr(g, which)[name] for g in graphs)
    return a, b, c


def _key(triple: Triple) -> tuple[int, int, int]:
    return id(triple[0]), id(triple[1]), id(triple[2])


class _Maker:
    """Walks three graphs side by side and builds the capacity graph from the inputs up."""

    def __init__(self, capacity: int, n: Node):
        self.capacity, self.n = capacity, n
        self._beyond = build.elementwise("SUB", n, build.scalar(capacity, "int64"))
        self._done: dict[tuple[int, int, int], Value] = {}
        self._narrow = build.cast(n, POSITION)

    # ---- the walk

    def values(self, roots: Iterable[Triple]) -> dict[tuple[int, int, int], Value]:
        """The value of every triple that the roots need."""
        done = self._done
        stack = list(roots)
        while stack:
            triple = stack[-1]
            key = _key(triple)
            if key in done:
                stack.pop()
                continue
            a, b, c = triple
            if a is b and b is c:
                done[key] = Value(a)
                stack.pop()
                continue
            if not a.op == b.op == c.op or len({len(x.inputs) for x in triple}) > 1 or a.dtype != b.dtype:
                raise NotAffine(f"{a!r} stands where {b!r} and {c!r} stand for smaller sizes")
            operands = list(zip(a.inputs, b.inputs, c.inputs))
            waiting = [t for t in operands if _key(t) not in done]
            if waiting:
                stack.extend(waiting)
                continue
            made = self._value(triple, [done[_key(t)] for t in operands])
            if made.node.op not in ("INPUT", "CONST"):
                made.node.origin = made.node.origin | a.origin
            # without invalid positions there is nothing that is not zero
            done[key] = made if made.valid else Value(made.node)
            stack.pop()
        return done

    def _value(self, triple: Triple, operands: list[Value]) -> Value:
        a = triple[0]
        if a.is_elementwise:
            return self._elementwise(triple, operands)
        if a.is_reduce:
            return self._reduce(triple, operands[0])
        rule = {
            "INPUT": self._input,
            "CONST": self._constant,
            "IOTA": self._iota,
            "VIEW": self._view,
            "CONCAT": self._concat,
        }.get(a.op)
        if rule is None:
            raise NotAffine(f"{a.op} over growing dimensions")
        return rule(triple, operands)

    # ---- sizes

    def sizes(self, triple: Triple) -> tuple[Size, ...]:
        """The dimensions of a triple."""
        if len({len(x.shape) for x in triple}) > 1:
            raise NotAffine(f"{triple[0]!r} changes its rank")
        return tuple(self._size(*dims) for dims in zip(*(x.shape for x in triple)))

    def _size(self, a: int, b: int, c: int) -> Size:
        slope = a - b
        if b - c != slope:
            raise NotAffine(f"the sizes {c}, {b}, {a} are no affine function of n")
        return Size(a - slope * self.capacity, slope)

    def _amount(self, size: Size) -> Node:
        """A size as a scalar that positions are compared with."""
        scaled = build.elementwise("MUL", self._narrow, build.scalar(size.slope, POSITION))
        return build.elementwise("ADD", scaled, build.scalar(size.constant, POSITION))

    def _shifted(self, place: Index, slope: int, shape: Sequence[int]) -> Node:
        """`place + slope · (n - capacity)` at every position of `shape`."""
        shift = build.elementwise("MUL", self._beyond, build.scalar(slope, "int64"))
        return build.apply("ADD", build.position(place, shape), build.expand(shift, shape))

    def _inside(self, place: Node, size: Size) -> Node:
        """Whether `0 <= place < size`, elementwise."""
        place = build.cast(place, POSITION)
        bound = build.expand(self._amount(size), place.shape)
        zero = build.full(0, place.shape, POSITION)
        return build.elementwise(
            "AND", build.elementwise("CMPLE", zero, place), build.elementwise("CMPLT", place, bound)
        )

    def _mask(self, x: Node, valid: Iterable[Valid], fill: float | int | bool) -> Node:
        """`x` where all predicates hold, else `fill`."""
        for v in valid:
            place = build.position(v.place, x.shape, POSITION)
            bound = build.expand(self._amount(v.size), x.shape)
            holds = build.elementwise("CMPLT", place, bound)
            x = build.elementwise("WHERE", holds, x, build.full(fill, x.shape, x.dtype))
        return x

    def _prefixes(self, sizes: Sequence[Size], shape: Sequence[int]) -> tuple[Valid, ...]:
        axes = [output_axis(i, d) for i, d in enumerate(shape)]
        return tuple(Valid(index(axis), s) for axis, s in zip(axes, sizes) if s.slope)

    # ---- leaves

    def _input(self, triple: Triple, _: list[Value]) -> Value:
        a = triple[0]
        if len({x.attrs for x in triple}) > 1:
            raise NotAffine(f"inputs {[x.attrs for x in triple]} stand for each other")
        return Value(a, self._prefixes(self.sizes(triple), a.shape))

    def _constant(self, triple: Triple, _: list[Value]) -> Value:
        a, b, c = (x.attrs.array for x in triple)
        sizes = self.sizes(triple)
        if a.shape != b.shape:
            for smaller in (b, c):
                part = a[tuple(slice(0, d) for d in smaller.shape)]
                if not np.array_equal(part, smaller):
                    raise NotAffine(f"constants of shape {list(a.shape)} that are no beginning of each other")
            return Value(triple[0], self._prefixes(sizes, a.shape), False)
        if np.array_equal(a, b) and np.array_equal(b, c):
            return Value(triple[0])
        if a.dtype.kind in "iu":
            wide = [x.astype(np.int64) for x in (a, b, c)]
            step = wide[0] - wide[1]
            if (wide[1] - wide[2] == step).all():
                moved = build.apply("MUL", build.expand(self._beyond, a.shape), build.constant(step))
                return Value(build.cast(build.apply("ADD", build.constant(wide[0]), moved), a.dtype.name))
        elif a.dtype.kind == "f":
            wide = [x.astype(np.float64) for x in (a, b, c)]
            for invert in (False, True):
                with np.errstate(divide="ignore", invalid="ignore"):
                    points = [1 / x for x in wide] if invert else wide
                step = points[0] - points[1]
                if np.allclose(points[1] - points[2], step, 1e-3, 0) and np.isfinite(points[0]).all():
                    return Value(self._affine_float(points[0], step, invert, a.dtype.name))
        raise NotAffine(f"constants of type {a.dtype} that are no affine function of n")

    def _affine_float(self, at: np.ndarray, step: np.ndarray, invert: bool, dtype: str) -> Node:
        beyond = build.expand(build.cast(self._beyond, "float64"), at.shape)
        moved = build.elementwise("MUL", beyond, build.constant(step))
        total = build.elementwise("ADD", build.constant(at), moved)
        return build.cast(build.elementwise("RECIP", total) if invert else total, dtype)

    def _iota(self, triple: Triple, _: list[Value]) -> Value:
        a = triple[0]
        made = _Aligned(self.capacity).indices(*(x.attrs for x in triple))
        if made.scaled or made.divided:
            raise NotAffine("positions whose strides grow")
        node = build.cast(self._shifted(a.attrs, made.slope, a.shape), a.dtype) if made.slope else a
        return Value(node, self._prefixes(self.sizes(triple), a.shape), False)

    # ---- elementwise and reduce

    def _elementwise(self, triple: Triple, operands: list[Value]) -> Value:
        a = triple[0]
        dtype = a.attrs if a.op in ("CAST", "BITCAST") else None
        node = build.elementwise(a.op, *(x.node for x in operands), dtype=dtype)
        valid = tuple(dict.fromkeys(v for x in operands for v in x.valid))
        read = operands[1:] if a.op == "WHERE" else operands
        keeps = a.op in KEEPS_ZERO or a.op == "WHERE"
        return Value(node, valid, keeps and all(x.zero for x in read))

    def _reduce(self, triple: Triple, x: Value) -> Value:
        a = triple[0]
        if any(t.attrs != a.attrs for t in triple):
            raise NotAffine("reductions over different axes")
        source = x.node
        reduced = {source.axes[i] for i in a.attrs}
        hidden = [v for v in x.valid if atoms_of(v.place) & reduced]
        if hidden:
            identity = reduce_identity(a.op, source.dtype)
            if a.op == "SUM" and source.op == "MUL":
                # both factors, so that the product stays one of two loads
                product = [t.inputs[0] for t in triple]
                factors = [self._done[_key(t)] for t in zip(*(p.inputs for p in product))]
                masked = [f.node if f.zero else self._mask(f.node, hidden, 0) for f in factors]
                source = build.elementwise("MUL", *masked)
            elif not (a.op == "SUM" and x.zero):
                source = self._mask(source, hidden, identity)
        node = build.reduce(a.op, source, a.attrs)
        kept = [axis for axis in x.node.axes if axis not in reduced]
        names: dict[Atom, Index] = {old: index(new) for old, new in zip(kept, node.axes)}
        valid = tuple(
            Valid(substitute(v.place, names), v.size) for v in x.valid if not atoms_of(v.place) & reduced
        )
        return Value(node, valid, False)

    # ---- movement

    def _view(self, triple: Triple, operands: list[Value]) -> Value:
        a = triple[0]
        source, slots = operands[0], operands[1:]
        maps: list[ViewMap] = [x.attrs for x in triple]
        sizes = self.sizes(triple)
        source_sizes = self._source_sizes(triple)
        if len({len(m.guards) for m in maps}) > 1 or not _same(m.fill for m in maps):
            raise NotAffine("views with different guards")
        plain = {v.place for v in source.valid}
        indices, shifts = [], []
        for number, places in enumerate(zip(*(m.indices for m in maps))):
            made = _Aligned(self.capacity).indices(*places)
            joined = source_sizes[number].slope and index(source.node.axes[number]) not in plain
            if made.scaled and not joined:
                raise NotAffine("a view whose strides grow")
            indices.append(places[0])
            shifts.append(0 if joined else made.slope)
        static: list[tuple[Index, int]] = []
        dynamic: list[tuple[Index, int, Size]] = []
        for given in zip(*(m.guards for m in maps)):
            made = _Aligned(self.capacity).indices(*(g for g, _ in given))
            bound = self._size(*(n for _, n in given))
            if made.scaled or made.divided:
                raise NotAffine("a guard whose strides grow")
            if made.slope or bound.slope:
                dynamic.append((given[0][0], made.slope, bound))
            if not made.slope:
                static.append(given[0])
        node = self._read(source.node, slots, indices, shifts, static, maps[0].fill, a.shape)
        for place, slope, bound in dynamic:
            if any(isinstance(atom, Slot) for atom in atoms_of(place)):
                raise NotAffine("a guard over data that depends on n")
            holds = self._inside(self._shifted(place, slope, a.shape), bound)
            node = build.elementwise("WHERE", holds, node, build.full(maps[0].fill, a.shape, node.dtype))
        replaced: dict[Atom, Index] = dict(zip(source.node.axes, indices))
        followed = [
            Valid(substitute(v.place, replaced), v.size)
            for v in source.valid
            if not any(shifts[i] for i, axis in enumerate(source.node.axes) if axis in atoms_of(v.place))
        ]
        followed = [v for v in followed if not any(isinstance(t, Slot) for t in atoms_of(v.place))]
        # where the guard fails, the fill is as valid as what is read elsewhere
        filled = {(place, bound) for place, slope, bound in dynamic if not slope}
        followed = [v for v in followed if (v.place, v.size) not in filled]
        inner = {t for v in followed for t in _divided(v.place)}
        prefixes = [
            v for v in self._prefixes(sizes, a.shape) if next(iter(atoms_of(v.place)), None) not in inner
        ]
        valid = tuple(dict.fromkeys([*followed, *prefixes]))
        extra = any(v not in followed for v in prefixes)
        zero = source.zero and not extra and not any(shifts) and not slots and bool(followed)
        zero = zero and not dynamic and (not static or maps[0].fill == 0)
        return Value(node, valid, zero)

    def _source_sizes(self, triple: Triple) -> tuple[Size, ...]:
        a, b, c = (x.inputs[0] for x in triple)
        return self.sizes((a, b, c))

    def _read(
        self,
        source: Node,
        slots: Sequence[Value],
        indices: Sequence[Index],
        shifts: Sequence[int],
        guards: Sequence[tuple[Index, int]],
        fill: float | int | bool,
        shape: tuple[int, ...],
    ) -> Node:
        """The view, with an index read from data wherever a place moves with n."""
        inputs = [s.node for s in slots]
        if not any(shifts):
            return build.view(source, indices, shape, guards, fill, inputs)
        places = list(indices)
        more: list[Node] = []
        for axis, slope in enumerate(shifts):
            if not slope:
                continue
            if any(isinstance(atom, Slot) for atom in atoms_of(places[axis])):
                raise NotAffine("a place that depends on data and on n")
            number = len(inputs) + len(more)
            more.append(self._shifted(places[axis], slope, shape))
            places[axis] = index(Slot(number, 0, source.shape[axis] - 1))
        made = build.indexed_view(source, places, shape, [*inputs, *more], fill)
        if not guards:
            return made
        return build.view(source, places, shape, [*made.attrs.guards, *guards], fill, [*inputs, *more])

    def _concat(self, triple: Triple, operands: list[Value]) -> Value:
        a = triple[0]
        axis = a.attrs
        if any(t.attrs != axis for t in triple):
            raise NotAffine("concatenations along different axes")
        parts = [self.sizes((x, y, z)) for x, y, z in zip(*(t.inputs for t in triple))]
        for part in operands:
            plain = {index(x) for x in part.node.axes}
            if any(v.place not in plain for v in part.valid):
                raise NotAffine("a concatenation of joined axes")
        valid = self._prefixes(self.sizes(triple), a.shape)
        if not any(p[axis].slope for p in parts[:-1]):
            node = build.concat([x.node for x in operands], axis)
            return Value(node, valid, all(x.zero for x in operands) and len(valid) > 0)
        place = build.position(index(output_axis(axis, a.shape[axis])), a.shape, POSITION)
        total = Size(sum(p[axis].constant for p in parts), sum(p[axis].slope for p in parts))
        result = build.full(0, a.shape, a.dtype)
        end = total
        for part, size in reversed(list(zip(operands, parts))):
            start = Size(end.constant - size[axis].constant, end.slope - size[axis].slope)
            here = self._placed(part.node, axis, start, a.shape)
            holds = build.elementwise("CMPLT", place, build.expand(self._amount(end), a.shape))
            result = build.elementwise("WHERE", holds, here, result)
            end = start
        return Value(result, valid, all(x.zero for x in operands))

    def _placed(self, part: Node, axis: int, start: Size, shape: tuple[int, ...]) -> Node:
        """`part` along `axis` from `start` on; what is elsewhere does not matter."""
        if part.shape[axis] == 1:
            return build.expand(part, shape)
        if start == Size(0):
            after = [d - p for d, p in zip(shape, part.shape)]
            return build.pad(part, [0] * len(shape), after)
        axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
        first = build.expand(build.cast(self._amount(start), "int64"), shape)
        moved = build.elementwise("SUB", build.position(axes[axis], shape), first)
        axes[axis] = index(Slot(0, 0, part.shape[axis] - 1))
        return build.indexed_view(part, axes, shape, [moved])


@dataclass(frozen=True)
class _Aligned:
    """The comparison of one index of three graphs."""

    capacity: int
    slope: int = 0
    scaled: bool = False
    divided: bool = False

    def indices(self, a: Index, b: Index, c: Index) -> _Aligned:
        """How the constant grows with n, and whether coefficients or divisors do; NotAffine for other
        differences.
        """
        if a == b == c:
            return self
        if not len(a.terms) == len(b.terms) == len(c.terms):
            raise NotAffine(f"the indices {a}, {b} and {c}")
        scaled = divided = False
        left = [list(b.terms), list(c.terms)]
        for atom, coefficient in a.terms:
            factors = [coefficient]
            for terms in left:
                found = next((t for t in terms if _alike(atom, t[0])), None)
                if found is None:
                    raise NotAffine(f"the indices {a}, {b} and {c}")
                terms.remove(found)
                factors.append(found[1])
                divided |= _divisor(atom) != _divisor(found[0])
            if factors[0] - factors[1] != factors[1] - factors[2]:
                raise NotAffine(f"the indices {a}, {b} and {c}")
            scaled |= factors[0] != factors[1]
        slope = a.const - b.const
        if b.const - c.const != slope:
            raise NotAffine(f"the indices {a}, {b} and {c}")
        return _Aligned(self.capacity, slope, scaled, divided)


def _alike(a: Atom, b: Atom) -> bool:
    """Whether two atoms differ at most in sizes and divisors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Axis) and isinstance(b, Axis):
        return a.name == b.name
    if isinstance(a, Slot) and isinstance(b, Slot):
        return a.number == b.number
    if isinstance(a, (FloorDiv, Mod)) and isinstance(b, (FloorDiv, Mod)):
        return len(a.inner.terms) == len(b.inner.terms) and all(
            any(_alike(x, y) for y, _ in b.inner.terms) for x, _ in a.inner.terms
        )
    return False


def _divisor(atom: Atom) -> object:
    if isinstance(atom, (FloorDiv, Mod)):
        return atom.divisor, tuple(c for _, c in atom.inner.terms), atom.inner.const
    return None


def _divided(place: Index) -> set[Atom]:
    """The axes inside divisions and remainders of an index."""
    return {
        t for atom, _ in place.terms if isinstance(atom, (FloorDiv, Mod)) for t in atoms_of(atom.inner)
    }


def _same(values: Iterable[object]) -> bool:
    listed = list(values)
    return all(v == listed[0] or (v != v and listed[0] != listed[0]) for v in listed)
