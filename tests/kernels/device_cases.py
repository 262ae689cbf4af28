"""The graphs that every device has to run: small cases, several of which make one program.

A program costs a driver's compiler much more than a kernel does, and a kernel more than its arithmetic. So
cases are joined into programs, and what differs by its op only is one kernel: row i of its result is op i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from random_graphs import DTYPES, FLOATS, GENERATORS, INTEGERS, Case, Feeder, case
from test_scatter import elements, rows

from tinyinfer.ir import build
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import COMBINATIONS, Node, node, output_axis, topological_order
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE, TRANSCENDENTAL

Cases = dict[str, Case]


def joined(cases: Sequence[Case]) -> Case:
    """All cases as one, whose inputs are called by their case's number."""
    outputs: list[Node] = []
    feeds: dict[str, np.ndarray] = {}
    for number, chosen in enumerate(cases):
        outputs += _renamed(chosen.outputs, f"c{number}_")
        feeds |= {f"c{number}_{name}": array for name, array in chosen.feeds.items()}
    return Case(outputs, feeds)


def _renamed(outputs: Sequence[Node], prefix: str) -> list[Node]:
    made: dict[int, Node] = {}
    for x in topological_order(outputs):
        attrs = prefix + x.attrs if x.op == "INPUT" else x.attrs
        made[id(x)] = node(x.op, [made[id(i)] for i in x.inputs], attrs, x.shape, x.dtype, x.origin)
    return [made[id(x)] for x in outputs]


# ---- every op of the table on special values


def special_values(dtype: str) -> np.ndarray:
    """Values where arithmetic has edges: limits, zeros, infinities, NaN, halves, powers of two."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([False, True])
    if kind.kind == "f":
        limits = np.finfo(kind)
        edges = [np.inf, -np.inf, np.nan, limits.max, limits.min, limits.tiny, -limits.tiny]
        small = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 7.25, -100.125, 1e-3, 300, -129]
        return np.array([*small, *edges], kind)
    bounds = np.iinfo(kind)
    edges = [bounds.max, bounds.max - 1, bounds.min, bounds.min + 1, bounds.max // 2]
    values = [0, 1, 2, 3, 7, *edges, 100, -1, -2, -3, -7, (1 << 24) + 1, (1 << 53) + 1]
    return np.array([v for v in values if bounds.min <= v <= bounds.max], kind)


_OF_BOOLS = ("NOT", "AND", "OR", "XOR", "ADD", "MUL", "MAX", "MIN", "MULACC", "WHERE")
_OF_FLOATS = (*TRANSCENDENTAL, "RECIP", "SQRT", "DIV", "FLOOR", "CEIL", "ROUND", "TRUNC")
_OF_INTEGERS = ("NOT", "AND", "OR", "XOR", "SHL", "SHR", "IDIV")


def defined(op: str, dtype: str) -> bool:
    """Whether an op of inputs of a dtype means something."""
    if op in ("CAST", "BITCAST"):
        return True
    if dtype == "bool":
        return op in _OF_BOOLS or op.startswith("CMP")
    return op not in (_OF_INTEGERS if dtype in FLOATS else _OF_FLOATS)


def select(values: Sequence[Node]) -> Node:
    """Row i of the i-th value; all are of one shape and dtype."""
    row = build.iota(values[0].shape, 0, "int32")
    chosen = values[-1]
    for number, value in enumerate(values[:-1]):
        here = build.elementwise("CMPEQ", row, build.full(number, row.shape, "int32"))
        chosen = build.elementwise("WHERE", here, value, chosen)
    return chosen


def spread(x: Node, count: int) -> Node:
    """`count` rows of a value."""
    return build.expand(x, (count, *x.shape))


def operations(dtype: str, values: str = "") -> Case:
    """Every op that means something for a dtype, on all pairs of special values, those of `values` if given.

    Two outputs, a row for each op: of ops whose result is of the dtype, and of comparisons. Shifts go beyond
    the width.
    """
    special = special_values(values or dtype).astype(dtype)
    a, b = (v.ravel() for v in np.meshgrid(special, special, indexing="ij"))
    ops = [op for op in ELEMENTWISE if op not in ("CAST", "BITCAST") and defined(op, dtype)]
    feeds = {"a": a, "b": b, "c": np.arange(a.size) % 3 == 0}
    if dtype in FLOATS:
        # argument reduction of numbers beyond 2^53 has no meaning left to agree on
        feeds["angle"] = np.where(np.abs(a) < 1e4, a, 1).astype(a.dtype)
    else:
        feeds["count"] = (np.arange(a.size) % (8 * a.itemsize + 3)).astype(a.dtype)
    inputs = {name: build.input_node(name, v.shape, v.dtype.name) for name, v in feeds.items()}
    outputs = []
    for compares in (False, True):
        some = [op for op in ops if (ELEMENTWISE[op].result == "bool") == compares]
        if some:
            x = {name: spread(value, len(some)) for name, value in inputs.items()}
            outputs.append(select([_applied(op, x) for op in some]))
    return Case(outputs, {x.attrs: feeds[x.attrs] for x in topological_order(outputs) if x.op == "INPUT"})


def _applied(op: str, x: dict[str, Node]) -> Node:
    if op == "WHERE":
        return build.elementwise(op, x["c"], x["a"], x["b"])
    if op in ("SIN", "COS"):
        return build.elementwise(op, x["angle"])
    if op in ("SHL", "SHR"):
        return build.elementwise(op, x["a"], x["count"])
    return build.elementwise(op, *[x["a"], x["b"], x["a"]][: ELEMENTWISE[op].arity])


def float_functions(dtype: str) -> Case:
    """Ops that mean something for floats, and little for integers."""
    x = build.input_node("x", (5,), dtype)
    ops = ("DIV", "FLOOR", "CEIL", "ROUND", "TRUNC")
    many = spread(x, len(ops))
    inputs = [many, build.full(2, many.shape, dtype)]
    output = select([build.elementwise(op, *inputs[: ELEMENTWISE[op].arity]) for op in ops])
    return Case([output], {"x": np.array([0, 1, 4, 9, 11], dtype)})


def casts(source: str, dtypes: Sequence[str] = DTYPES) -> Case:
    """A cast to every other one of `dtypes`: what comes out as bits, a row for each dtype; NaN as 0."""
    special = np.resize(special_values(source), 37)
    if source in FLOATS:
        edges = [65504, 2.0**31, 2.0**32 - 1, 2.0**63, -(2.0**63), 2.0**64, 1e20, -1e20, 127.5, -0.75, 255.99]
        with np.errstate(over="ignore"):
            special = np.concatenate([special, np.array(edges).astype(source)])
    others = [t for t in dtypes if t != source]
    x = spread(build.input_node("x", special.shape, source), len(others))
    return Case([select([_bits(build.cast(x, target)) for target in others])], {"x": special})


def _bits(x: Node) -> Node:
    """The bits of each number as a uint64; 0 for NaN."""
    if x.dtype == "bool":
        return build.cast(x, "uint64")
    unsigned = build.elementwise("BITCAST", x, dtype=f"uint{8 * np.dtype(x.dtype).itemsize}")
    bits = build.cast(unsigned, "uint64")
    if x.dtype not in FLOATS:
        return bits
    is_nan = build.elementwise("CMPNE", x, x)
    return build.elementwise("WHERE", is_nan, build.full(0, x.shape, "uint64"), bits)


def bitcasts(source: str, dtypes: Sequence[str] = DTYPES) -> Case:
    """Bits as every other one of `dtypes` of the same size, a row for each, as bits again; NaN as 0."""
    values = np.resize(special_values(source), 37)
    if source == "uint16":
        values = np.arange(1 << 16).astype(np.uint16)
    if source in ("int8", "uint8"):
        values = np.resize(np.array([0, 1], source), 37)
    size = np.dtype(source).itemsize
    others = [t for t in dtypes if np.dtype(t).itemsize == size and t != source]
    x = spread(build.input_node("x", values.shape, source), len(others))
    outputs = [build.elementwise("BITCAST", x, dtype=t) for t in others]
    return Case([select([_bits(y) for y in outputs])], {"x": values})


# ---- reductions, movement, indices, of every dtype


def reductions(dtype: str) -> Case:
    """Every reduce op along rows, columns and both, of an odd shape, with NaN among floats; an empty one."""
    rng = np.random.default_rng(5)
    shape = (3, 1, 37, 5)
    if dtype in FLOATS:
        array = rng.uniform(0.9, 1.1, shape).astype(dtype)
        array[1, 0, 30, 2] = np.nan
    else:
        array = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    x, none = build.input_node("x", shape, dtype), build.input_node("none", (2, 0, 3), dtype)
    outputs = [
        build.reduce(op, source, axes)
        for op, axes in zip(REDUCE, [(2,), (0, 3), (0, 1, 2, 3), (3,)], strict=True)
        for source in (x, none)
        if source is x or op in ("MAX", "PROD")
        for axes in [axes if source is x else (1,)]
    ]
    return Case(outputs, {"x": array, "none": np.zeros((2, 0, 3), dtype)}, scale=40.0, factor=4.0)


def movement(dtype: str) -> Case:
    """Transposed, reversed, cut, padded and repeated; joined along the innermost axis and another one."""
    f = Feeder(np.random.default_rng(7))
    x = f.input(f.array((5, 7, 3), dtype))
    fill: float | int | bool = float("-inf") if dtype in FLOATS else 1
    turned = build.flip(build.permute(x, [2, 0, 1]), [0, 2])
    padded = build.pad(build.shrink(turned, [0, 1, 0], [3, 5, 7], [2, 1, 3]), [1, 0, 2], [0, 3, 1], fill)
    wide = build.expand(build.reshape(x, (5, 1, 21)), (5, 2, 21))
    inside = build.concat([wide, build.flip(wide, [0, 2])], 2)
    return Case([padded, inside, build.concat([x, x, x], 0)], f.feeds)


def indices(dtype: str) -> Case:
    """Rows and elements read at places that data decide, in range and not, of several index types."""
    f = Feeder(np.random.default_rng(11))
    x = f.input(f.array((6, 5), dtype))
    outputs = []
    for kind, axis, picked in (
        ("int64", 0, [0, 5, -1, 6, np.iinfo(np.int64).max, np.iinfo(np.int64).min, 2]),
        ("uint8", 1, [0, 4, 5, 255]),
        ("int32", 0, [[1, 3, 5], [-6, 0, 2]]),
    ):
        outputs.append(build.gather(x, f.input(np.array(picked, kind)), axis))
    return Case(outputs, f.feeds)


def scatters(combine: str, dtype: str) -> Case:
    """Updates in and out of range that collide, of single elements and of rows."""
    rng = np.random.default_rng(5)
    x, u = (build.input_node(n, (d, 9), dtype) for n, d in (("x", 6), ("u", 5)))
    at, row = build.input_node("at", (5, 9), "int64"), build.input_node("row", (5,), "int32")
    feeds = {"x": rng.integers(0, 5, (6, 9)).astype(dtype), "u": rng.integers(0, 5, (5, 9)).astype(dtype)}
    feeds |= {"at": rng.integers(-3, 9, (5, 9)), "row": np.array([0, 5, -1, 6, 5], np.int32)}
    return Case([elements(x, u, at, 0, combine), rows(x, u, row, combine)], feeds)


def of_dtype(dtype: str, dtypes: Sequence[str], values: str = "") -> Cases:
    """Everything that is said of one dtype, on a device that has `dtypes`; `values` as in `operations`."""
    made = {
        "operations": operations(dtype, values),
        "casts": casts(dtype, dtypes),
        "bitcasts": bitcasts(dtype, dtypes),
        "reductions": reductions(dtype),
        "movement": movement(dtype),
        "indices": indices(dtype),
        "scatter": scatters(COMBINATIONS[DTYPES.index(dtype) % len(COMBINATIONS)], dtype),
    }
    if dtype in INTEGERS:
        made["functions of floats"] = float_functions(dtype)
    return made


# ---- shapes


def shapes() -> Cases:
    """Ranks from 0 to 7, axes of one element, primes; sums longer than a work-group."""
    made = {}
    rng = np.random.default_rng(1)
    for shape in [(), (1,), (31,), (1, 1, 1), (2, 3, 5, 7), (3, 1, 2, 1, 2, 5), (2, 1, 3, 2, 1, 2, 3)]:
        x = build.input_node("x", shape, "float32")
        outputs = [build.elementwise("NEG", x), build.reduce("SUM", x, range(len(shape)))]
        if len(shape) > 1:
            order = [*range(1, len(shape)), 0]
            outputs[0] = build.elementwise("ABS", build.permute(x, order))
        array = np.asarray(rng.standard_normal(shape)).astype(np.float32)
        made[f"rank {len(shape)} {shape}"] = Case(outputs, {"x": array}, scale=20.0)
    for m, k, n in [(1, 1, 1), (7, 13, 17), (1, 509, 3), (67, 2, 31), (2, 2048, 1)]:
        x = build.input_node("x", (m, k), "float32")
        w = build.constant(rng.standard_normal((k, n)).astype(np.float32))
        array = rng.standard_normal((m, k)).astype(np.float32)
        made[f"matmul {m}x{k}x{n}"] = Case([build.matmul(x, w)], {"x": array}, scale=4.0 * k)
    for channels, size in [(1, 7), (2, 1), (5, 14), (31, 7), (130, 1)]:
        x = build.input_node("x", (1, channels, size, size), "float32")
        w = build.constant(rng.standard_normal((channels + 3, channels, 3, 3)).astype(np.float32))
        y = build.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1])
        y = build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))
        array = rng.standard_normal(x.shape).astype(np.float32)
        made[f"convolution {channels} of {size}"] = Case([y], {"x": array}, scale=12.0 * channels)
    return made


def nothing() -> Cases:
    """Values without elements, and what is computed of them; outputs that nothing computes."""
    f = Feeder(np.random.default_rng(2))
    empty, none, x = (f.input(f.array(shape)) for shape in ((0, 16), (3, 0), (2, 16)))
    weights = build.constant(np.ones((16, 32), np.float32))
    outputs = [
        build.elementwise("EXP", empty),
        build.matmul(empty, weights),
        build.permute(empty, [1, 0]),
        build.matmul(none, f.input(f.array((0, 32)))),
        build.gather(x, f.input(np.zeros(0, np.int64)), 0),
        build.gather(empty, f.input(np.array([0, 1, -1, 5])), 0),
        build.reduce("MAX", none, [1]),
        empty,
        build.pad(none, [0, 2], [0, 3], 1.5),
        build.concat([empty, x], 0),
    ]
    table = build.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
    given = [x, table, x, build.permute(x, [1, 0]), build.scalar(2, "int8"), build.iota((3, 4), 1), table]
    given += [build.full(7, (2, 2), "uint8"), build.iota((5,), 0, "int32")]
    return {"empty": Case(outputs, f.feeds), "given": Case(given, {"x2": f.feeds["x2"]})}


def big_indices() -> Cases:
    """Places beyond 2^31 and 2^32 of tensors that nobody stores: repeated, cut, reversed and padded views,
    strides, divisions, and indices from data."""
    f = Feeder(np.random.default_rng(3))
    x = f.input(f.array((7,)))
    many = 7 << 31
    repeated = build.reshape(build.expand(x, (1 << 31, 7)), (many,))
    seen = [
        build.shrink(repeated, [many - 40], [many]),
        build.shrink(repeated, [many - 1], [many - 30 * ((1 << 28) + 3) - 1], [-(1 << 28) - 3]),
        build.shrink(build.pad(x, [1 << 33], [1 << 33], 2.5), [(1 << 33) - 5], [(1 << 33) + 12]),
        build.window(x, [3], [1], [1 << 32], [1 << 32], [1 << 32], -1.0),
    ]
    rows, columns = (index(output_axis(i, 13)) for i in range(2))
    far = rows * ((1 << 33) + 1) - columns * ((1 << 31) + 5) + (1 << 37)
    seen += [build.view(x, [far % 7], (13, 13)), build.view(x, [(far // ((1 << 30) + 7)) % 7], (13, 13))]
    numbers = [build.position(far, (13, 13)), build.position(far // 3 % 1_000_003, (13, 13))]
    places = f.input(np.array([0, 6, 1 << 31, (1 << 32) + 3, 1 << 40, (1 << 40) + 1, -1, -(1 << 33)]))
    slot = index(Slot(0, 0, 1 << 40))
    picked = [
        build.indexed_view(x, [slot % 7], (8,), [places], 9.0),
        build.indexed_view(x, [((1 << 40) - slot) // 3 % 7], (8,), [places], 9.0),
    ]
    updates = f.input(f.array((8,)))
    put = [build.scatter(x, updates, [slot % 7], [places], combine) for combine in ("SET", "MAX")]
    return {"seen": Case([*seen, *numbers, *picked, *put], f.feeds)}


# ---- random graphs


def random_cases(name: str, first: int, count: int) -> Cases:
    return {f"{name} {seed}": case(name, seed) for seed in range(first, first + count)}


SEEDS = 3

PROGRAMS: dict[str, Callable[[], Cases]] = {
    "scatters": lambda: {
        f"{c} {d}": scatters(c, d) for c in COMBINATIONS for d in ("float32", "int16", "bool", "float16")
    },
    "shapes": shapes,
    "nothing": nothing,
    "big_indices": big_indices,
    **{name: (lambda name=name: random_cases(name, 0, SEEDS)) for name in GENERATORS},
}
"""Cases by name, of each program by its name; those of a dtype are `of_dtype`'s."""


def computed(cases: Cases, dtypes: Sequence[str]) -> Cases:
    """The cases that need no other dtypes than these."""
    return {
        name: chosen
        for name, chosen in cases.items()
        if all(x.dtype in dtypes for x in topological_order(chosen.outputs))
    }
