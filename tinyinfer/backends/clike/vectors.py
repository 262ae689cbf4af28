"""Expressions of one work-item that computes several neighbours along one axis.

Arithmetic stays scalar, as in the hardware; only memory is read and written in vectors, where neighbours lie
side by side. A vector that was read is known until the block ends that it was read in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tinyinfer.backends.clike.arithmetic import Value
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Evaluator, Position, is_number
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.index import Axis, Index
from tinyinfer.kernels.access import Access
from tinyinfer.kernels.expression import Expr
from tinyinfer.kernels.image import TEXEL, split_address
from tinyinfer.kernels.schedule_map import stride_of

ALIGNMENT = 16
"""Bytes whose multiples aligned arguments begin at."""

WRITE_TEXEL = {"float32": "write_imagef", "float16": "ti_write_halves"}
"""The function that writes a texel, by what its elements are stored as. Drivers may round or truncate what
goes to halves, so it is rounded before."""


class VectorEvaluator(Evaluator):
    """An Evaluator that reads `lanes` neighbours along `vector` at once.

    Places along `vector` must be sums of counters that are multiples of `lanes`, and a literal. `aligned`
    says which arguments begin at a multiple of a vector, `images` what each argument's image stores ("" where
    it is none); `multiples` are counters that are multiples of four.
    """

    def __init__(
        self,
        writer: Writer,
        dialect: Dialect,
        arguments: list[str],
        dtypes: tuple[str, ...],
        root: Expr,
        vector: Axis | None,
        lanes: int,
        aligned: Sequence[bool],
        images: Sequence[str] = (),
    ):
        super().__init__(writer, dialect, arguments, dtypes, root)
        self.vector, self.lanes, self.aligned = vector, lanes if vector is not None else 1, aligned
        self.images = images or ("",) * len(arguments)
        self.multiples: set[str] = set()
        self.loaded: list[dict[tuple[int, str], str]] = [{}]

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Names given inside a block of the language, vectors too, are not known after its end."""
        self.loaded.append({})
        with self.scope():
            yield
        self.loaded.pop()

    def _make(self, e: Expr, p: Position) -> Value:
        if e.op == "LOAD" and self._side_by_side(e, p):
            return self._lane(e.attrs, e.dtype, p)
        return super()._make(e, p)

    def _side_by_side(self, e: Expr, p: Position) -> bool:
        return (
            self.lanes > 1
            and self.vector in p.places
            and not e.attrs.guards
            and e.attrs.argument != 0
            and not self.images[e.attrs.argument]
            and stride_of(e, self.vector, self.free) == 1  # type: ignore[arg-type]
        )

    def _lane(self, access: Access, dtype: str, p: Position) -> Value:
        """One element of a vector, which is read if it is not known."""
        assert self.vector is not None
        names, offset = p.places[self.vector]
        lane = offset % self.lanes
        first = p.at(self.vector, (names, offset - lane))
        place = self.index(access.address, first)
        key = (access.argument, place)
        name = next((t[key] for t in reversed(self.loaded) if key in t), None)
        if name is None:
            name = self.read_vector(access.argument, access.address, place, self.lanes)
            self.loaded[-1][key] = name
        kind = self.dialect.types[dtype]
        text = f"{name}.s{lane}"
        return Value(text if kind.converted else kind.load.format(text), dtype)

    def is_aligned(self, argument: int, address: Index, lanes: int) -> bool:
        """Whether an address is that of a whole vector whenever places along the vectorised axis are."""
        dtype = self.dtypes[argument]
        if not self.aligned[argument] or lanes in (1, 3) or self.dialect.types[dtype].converted:
            return False
        if lanes * numpy_dtype(dtype).itemsize > ALIGNMENT:
            return False
        steps = (c for atom, c in address.terms if atom != self.vector)
        return not address.const % lanes and not any(c % lanes for c in steps)

    def read_vector(self, argument: int, address: Index, place: str, lanes: int) -> str:
        """Define a vector of elements as they lie in memory from `place` on; halves become floats."""
        kind, array = self.dialect.types[self.dtypes[argument]], self.arguments[argument]
        name = self.w.name("v")
        if kind.converted:
            self.w.do(f"const {kind.value}{lanes} {name} = vload_{kind.memory}{lanes}(0, {array} + {place});")
        elif self.is_aligned(argument, address, lanes):
            vector = f"{kind.memory}{lanes}"
            self.w.do(f"const {vector} {name} = *(const __global {vector} *)({array} + {place});")
        else:
            self.w.do(f"const {kind.memory}{lanes} {name} = vload{lanes}(0, {array} + {place});")
        return name

    def load(self, access: Access, dtype: str, p: Position) -> Value:
        if self.images[access.argument]:
            return self._element_of_image(access, dtype, p)
        if self.dialect.types[dtype].converted and not access.guards:
            return Value(self._converted(access, p), dtype)
        return super().load(access, dtype, p)

    def element(self, argument: int, address: Index, p: Position) -> str:
        if self.dialect.types[self.dtypes[argument]].converted:
            return self._converted(Access(argument, address), p)
        return super().element(argument, address, p)

    def _converted(self, access: Access, p: Position) -> str:
        memory = self.dialect.types[self.dtypes[access.argument]].memory
        place = self.index(access.address, p)
        return f"vload_{memory}({place}, {self.arguments[access.argument]})"

    def store(self, argument: int, address: Index, value: Value, p: Position) -> None:
        kind = self.dialect.types[self.dtypes[argument]]
        if kind.converted:
            place = self.index(address, p)
            self.w.do(f"vstore_{kind.memory}_rte({value.text}, {place}, {self.arguments[argument]});")
            return
        super().store(argument, address, value, p)

    def store_all(self, address: Index, values: Sequence[Value], positions: Sequence[Position]) -> None:
        """Write the values of neighbours along the vectorised axis to argument 0: as vectors, if they lie
        side by side."""
        if self.images[0]:
            self._store_texels(address, values, positions)
            return
        lanes = self.lanes
        vector = self.vector
        if lanes == 1 or vector is None or address.coefficient(vector) != 1 or len(values) % lanes:
            for value, p in zip(values, positions):
                self.store(0, address, value, p)
            return
        kind, out = self.dialect.types[self.dtypes[0]], self.arguments[0]
        for first in range(0, len(values), lanes):
            texts = [
                v.text if kind.converted else kind.store.format(v.text) for v in values[first : first + lanes]
            ]
            place = self.index(address, positions[first])
            element = kind.value if kind.converted else kind.memory
            made = f"({element}{lanes})({', '.join(texts)})"
            if kind.converted:
                self.w.do(f"vstore_{kind.memory}{lanes}_rte({made}, 0, {out} + {place});")
            elif self.is_aligned(0, address, lanes):
                self.w.do(f"*(__global {kind.memory}{lanes} *)({out} + {place}) = {made};")
            else:
                self.w.do(f"vstore{lanes}({made}, 0, {out} + {place});")

    # ---- images

    def texel(self, argument: int, address: Index, p: Position) -> tuple[str, str]:
        """The coordinates of the texel that an element of an image lies in, and its place in there."""
        row, column = split_address(address)
        whole, lane = self._texel_and_lane(column, p)
        return f"(int2)({whole}, {self.index(row, p)})", lane

    def read_texel(self, argument: int, place: str, guard: str = "1", fill: str = "") -> str:
        """The name of a texel, which is read if it is not known: where the guard fails it is `fill`."""
        key = (argument, f"{place} {guard}")
        name = next((t[key] for t in reversed(self.loaded) if key in t), None)
        if name is None:
            name = self.loaded[-1][key] = self.w.name("v")
            read = f"read_imagef({self.arguments[argument]}, {place})"
            if guard == "1":
                self.w.do(f"const float4 {name} = {read};")
            else:
                self.w.do(f"float4 {name} = (float4)({fill});")
                self.w.do(f"if ({guard}) {name} = {read};")
        return name

    def _element_of_image(self, access: Access, dtype: str, p: Position) -> Value:
        guard, fill = self.guard(access.guards, p), self.dialect.literal(access.fill, dtype)
        if guard == "0":
            return Value(fill, dtype)
        place, lane = self.texel(access.argument, access.address, p)
        name = self.read_texel(access.argument, place, guard, fill)
        return Value(f"{name}.s{lane}" if is_number(lane) else f"ti_lane({name}, {lane})", dtype)

    def _store_texels(self, address: Index, values: Sequence[Value], positions: Sequence[Position]) -> None:
        size = self.lanes if 1 < self.lanes < TEXEL else TEXEL
        write = WRITE_TEXEL[self.images[0]]
        for first in range(0, len(values), size):
            place, lane = self.texel(0, address, positions[first])
            assert lane == "0", "a kernel that writes an image computes whole texels"
            texel = [v.text for v in values[first : first + size]]
            parts = ", ".join([*texel, *["0.0f"] * (TEXEL - size)])
            self.w.do(f"{write}({self.arguments[0]}, {place}, (float4)({parts}));")

    def _texel_and_lane(self, column: Index, p: Position) -> tuple[str, str]:
        """A column in elements as one in texels, and the rest."""
        whole: dict[str, int] = {}
        rest: dict[str, int] = {}
        literal = column.const
        for atom, c in column.terms:
            names, more = self._atom(atom, p)
            literal += c * more
            for name in names:
                if c % TEXEL == 0:
                    whole[name] = whole.get(name, 0) + c // TEXEL
                elif name in self.multiples:
                    quarter = f"({name} >> 2)"
                    whole[quarter] = whole.get(quarter, 0) + c
                else:
                    rest[name] = rest.get(name, 0) + c
        if not rest:
            return _sum(whole, literal // TEXEL), str(literal % TEXEL)
        inner = _sum(rest, literal)
        whole[f"(({inner}) >> 2)"] = 1
        return _sum(whole, 0), f"({inner}) & 3"


def _sum(terms: dict[str, int], literal: int) -> str:
    parts = [name if c == 1 else f"{c} * {name}" for name, c in terms.items() if c]
    return " + ".join([*parts, *([str(literal)] if literal or not parts else [])])
