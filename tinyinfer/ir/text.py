"""The text form of a graph: one node a line, printed and parsed without loss.

    graph "tiny"
    %0 = INPUT float32[2, 3] () name="x"
    %1 = CONST float32[] () value=[0.5]
    %2 = VIEW float32[2, 3] (%1) map=[]
    %3 = MUL float32[2, 3] (%0, %2) origin=["scale"]
    inputs "x"=%0
    outputs "y"=%3

A literal of more than `SMALL_LITERAL` elements stands in a table beside the text (`graph_literals`) and is
named `literal="#0"`. Index expressions print as `repr` prints them, but for slots, which show their interval:
`@0[0..7]`. A view adds `guards=[index < size, …] fill=value` where it has guards; a scatter prints its map
over the axes of its updates, guards, and `combine=SUM`. The body of a LOOP stands in the lines below it, two
spaces further in; of its `scanned` and `stacked` values, 1 says backwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import numpy as np

from tinyinfer.ir.dtypes import is_float, numpy_dtype
from tinyinfer.ir.index import Atom, FloorDiv, Index, Mod, Slot
from tinyinfer.ir.node import (
    SMALL_LITERAL,
    Graph,
    Literal,
    LoopBody,
    Node,
    ScatterMap,
    ViewMap,
    node,
    output_axis,
)


def print_graph(graph: Graph) -> str:
    """The text of `graph`."""
    return _print(graph, {id(x): name for name, x in _literals(graph)})


def _print(graph: Graph, names: Mapping[int, str]) -> str:
    numbers: dict[int, int] = {}
    lines = [f"graph {json.dumps(graph.name)}"]
    for number, current in enumerate(_nodes(graph)):
        numbers[id(current)] = number
        operands = ", ".join(f"%{numbers[id(x)]}" for x in current.inputs)
        shape = ", ".join(map(str, current.shape))
        line = f"%{number} = {current.op} {current.dtype}[{shape}] ({operands}){_attributes(current, names)}"
        if current.origin:
            line += f" origin={json.dumps(sorted(current.origin))}"
        lines.append(line)
        if current.op == "LOOP":
            lines += [f"{INDENT}{inner}" for inner in _print(current.attrs.graph, names).splitlines()]
    for title, group in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        lines.append(" ".join([title, *(f"{json.dumps(k)}=%{numbers[id(x)]}" for k, x in group.items())]))
    return "\n".join(lines) + "\n"


def graph_literals(graph: Graph) -> dict[str, Literal]:
    """The literals that the text of `graph` names instead of printing."""
    return {name: x.attrs for name, x in _literals(graph)}


def _nodes(graph: Graph) -> list[Node]:
    order = graph.nodes()
    present = {id(x) for x in order}
    return [*order, *(x for x in graph.inputs.values() if id(x) not in present)]


def _literals(graph: Graph) -> Iterator[tuple[str, Node]]:
    large = dict.fromkeys(x for x in _deep_nodes(graph) if x.op == "CONST" and x.size > SMALL_LITERAL)
    return ((f"#{number}", x) for number, x in enumerate(large))


def _deep_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of `graph` and of the bodies of its loops."""
    for x in _nodes(graph):
        yield x
        if x.op == "LOOP":
            yield from _deep_nodes(x.attrs.graph)


def _attributes(x: Node, names: Mapping[int, str]) -> str:
    if x.op == "INPUT":
        return f" name={json.dumps(x.attrs)}"
    if x.op == "CONST":
        label = f" label={json.dumps(x.attrs.name)}" if x.attrs.name else ""
        if id(x) in names:
            return f" literal={json.dumps(names[id(x)])}{label}"
        return f" value={_print_values(x.attrs.array)}{label}"
    if x.op == "IOTA":
        return f" index={print_index(x.attrs)}"
    if x.op in ("VIEW", "SCATTER"):
        text = f" map=[{', '.join(map(print_index, x.attrs.indices))}]"
        if x.attrs.guards:
            text += f" guards=[{', '.join(f'{print_index(g)} < {n}' for g, n in x.attrs.guards)}]"
        if x.op == "SCATTER":
            return f"{text} combine={x.attrs.combine}"
        return f"{text} fill={_print_number(x.attrs.fill)}" if x.attrs.guards else text
    if x.is_reduce:
        return f" axes={list(x.attrs)}"
    if x.op == "LOOP":
        body: LoopBody = x.attrs
        scanned, stacked = list(map(int, body.scanned)), list(map(int, body.stacked))
        return (
            f" steps={body.steps} carried={body.carried} scanned={scanned} stacked={stacked} "
            f"counted={int(body.counted)} conditional={int(body.conditional)}"
        )
    if x.op == "LOOP_OUTPUT":
        return f" number={x.attrs}"
    return f" axis={x.attrs}" if x.op == "CONCAT" else ""


def _print_number(value: Any) -> str:
    value = np.asarray(value).item() if isinstance(value, np.generic) else value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _print_values(array: np.ndarray) -> str:
    """Numbers in row-major order; the bytes where numbers would lose something (the payload of a NaN)."""
    if array.dtype.kind == "c":
        return f"hex:{array.tobytes().hex()}"
    flat = array.reshape(-1)
    # numpy's str of a scalar is the shortest text for its own precision
    text = ", ".join(map(str, flat) if is_float(array.dtype.name) else map(_print_number, flat.tolist()))
    if _parse_values(text, array.dtype).tobytes() == array.tobytes():
        return f"[{text}]"
    return f"hex:{array.tobytes().hex()}"


def _parse_values(text: str, dtype: np.dtype) -> np.ndarray:
    numbers = [_parse_number(part) for part in text.split(",") if part.strip()]
    wide = np.array(numbers, np.float64) if is_float(dtype.name) else np.array(numbers, dtype)
    with np.errstate(all="ignore"):
        return wide.astype(dtype)


def _parse_number(text: str) -> float | int | bool:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


# ---- index expressions


def print_index(value: Index) -> str:
    """An index as text that `parse_index` reads."""
    parts = []
    for atom, c in value.terms:
        text = _print_atom(atom)
        if c == 1:
            parts.append(text)
        else:
            parts.append(f"{c}*({text})" if isinstance(atom, (FloorDiv, Mod)) else f"{c}*{text}")
    if value.const or not parts:
        parts.append(str(value.const))
    return " + ".join(parts)


def _print_atom(atom: Atom) -> str:
    if isinstance(atom, Slot):
        return f"@{atom.number}[{atom.lo}..{atom.hi}]"
    if isinstance(atom, FloorDiv):
        return f"({print_index(atom.inner)})//{atom.divisor}"
    if isinstance(atom, Mod):
        return f"({print_index(atom.inner)})%{atom.divisor}"
    return atom.text


_TOKEN = re.compile(r"\s*(?:(-?\d+)|o(\d+)|@(\d+)\[(-?\d+)\.\.(-?\d+)\]|(//|[-+*()%]))")


def parse_index(text: str, shape: tuple[int, ...]) -> Index:
    """The index that `print_index` printed; axes `o0 …` take their sizes from `shape`. Raises ValueError.

    Grammar: sum = term (" + " term)*; term = integer | [integer "*"] atom; atom = axis | slot | "(" sum ")"
    with "//" or "%" and an integer after it, or a bracketed atom.
    """
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text[position:]!r} in the index {text!r}")
        tokens.append(match)
        position = match.end()
    parser = _IndexParser(text, tokens, shape)
    result = parser.sum()
    if parser.position != len(tokens):
        raise ValueError(f"cannot read all of the index {text!r}")
    return result


class _IndexParser:
    """Recursive descent over tokens; builds indices as printed, without simplifying them again."""

    def __init__(self, text: str, tokens: list[re.Match[str]], shape: tuple[int, ...]):
        self.text, self.tokens, self.shape, self.position = text, tokens, shape, 0

    def _symbol(self) -> str | None:
        return self.tokens[self.position].group(6) if self.position < len(self.tokens) else None

    def _next(self) -> re.Match[str]:
        if self.position == len(self.tokens):
            raise ValueError(f"the index {self.text!r} ends too early")
        self.position += 1
        return self.tokens[self.position - 1]

    def _expect(self, symbol: str) -> None:
        if self._next().group(6) != symbol:
            raise ValueError(f"the index {self.text!r} lacks a {symbol!r}")

    def _integer(self) -> int:
        found = self._next().group(1)
        if found is None:
            raise ValueError(f"the index {self.text!r} lacks an integer")
        return int(found)

    def sum(self) -> Index:
        terms: list[tuple[Atom, int]] = []
        const = 0
        while True:
            coefficient = 1
            if self.position < len(self.tokens) and self.tokens[self.position].group(1) is not None:
                coefficient = self._integer()
                if self._symbol() != "*":
                    const += coefficient
                    coefficient = 0
                else:
                    self._expect("*")
            if coefficient:
                terms.append((self._atom(), coefficient))
            if self._symbol() != "+":
                return Index(tuple(terms), const)
            self._expect("+")

    def _atom(self) -> Atom:
        token = self._next()
        if token.group(2) is not None:
            number = int(token.group(2))
            if number >= len(self.shape):
                raise ValueError(f"the index {self.text!r} uses o{number} in rank {len(self.shape)}")
            return output_axis(number, self.shape[number])
        if token.group(3) is not None:
            return Slot(int(token.group(3)), int(token.group(4)), int(token.group(5)))
        if token.group(6) != "(":
            raise ValueError(f"the index {self.text!r} lacks an axis or a bracket")
        inner = self.sum()
        self._expect(")")
        symbol = self._symbol()
        if symbol in ("//", "%"):
            self._expect(symbol)
            divisor = self._integer()
            if divisor <= 0:
                raise ValueError(f"the index {self.text!r} divides by {divisor}")
            return FloorDiv(inner, divisor) if symbol == "//" else Mod(inner, divisor)
        if inner.const or len(inner.terms) != 1 or inner.terms[0][1] != 1:
            raise ValueError(f"the index {self.text!r} has a bracket without a division")
        return inner.terms[0][0]


# ---- parsing graphs


INDENT = "  "
_LINE = re.compile(r"%(\d+) = (\w+) (\w+)\[([\d, ]*)\] \(([%\d, ]*)\)(.*)")
_ATTRIBUTE = re.compile(
    r" (name|literal|label|value|index|map|guards|fill|combine|axes|axis|origin|number"
    r"|steps|carried|scanned|stacked|counted|conditional)="
)
_NAMED = re.compile(r' ("(?:[^"\\]|\\.)*")=%(\d+)')


def parse_graph(text: str, literals: Mapping[str, Literal] | None = None) -> Graph:
    """The graph that `print_graph` printed; `literals` is its `graph_literals`. A ValueError names the line.

    Nodes are hash-consed, so that parsing the text of a living graph gives its very nodes.
    """
    nodes: dict[int, Node] = {}
    graph = Graph({}, {})
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith(INDENT):
            continue
        try:
            if line.startswith("graph "):
                graph.name = json.loads(line[len("graph "):])
            elif line.startswith(("inputs", "outputs")):
                group = graph.inputs if line.startswith("inputs") else graph.outputs
                group.update((json.loads(name), nodes[int(x)]) for name, x in _NAMED.findall(line))
            elif line.strip():
                inner = takewhile(lambda x: x.startswith(INDENT), lines[number:])
                _parse_node(line, nodes, literals or {}, "\n".join(x[len(INDENT):] for x in inner))
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(f"line {number}: {error}: {line}") from None
    return graph


def _parse_node(line: str, nodes: dict[int, Node], literals: Mapping[str, Literal], inner: str) -> None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not a node")
    number, op, dtype, shape_text, operand_text, rest = match.groups()
    shape = tuple(int(d) for d in shape_text.split(",") if d.strip())
    inputs = [nodes[int(x.strip()[1:])] for x in operand_text.split(",") if x.strip()]
    attributes = _split_attributes(rest)
    origin = json.loads(attributes.pop("origin", "[]"))
    over = inputs[1].shape if op == "SCATTER" else shape
    attrs = (
        _parse_body(attributes, parse_graph(inner, literals))
        if op == "LOOP"
        else _parse_attributes(op, dtype, over, attributes, literals)
    )
    nodes[int(number)] = node(op, inputs, attrs, shape, dtype, origin)


def _parse_body(attributes: dict[str, str], graph: Graph) -> LoopBody:
    flags = [tuple(map(bool, json.loads(attributes[name]))) for name in ("scanned", "stacked")]
    steps, carried, counted, conditional = (
        int(attributes[name]) for name in ("steps", "carried", "counted", "conditional")
    )
    inputs, outputs = tuple(graph.inputs.values()), tuple(graph.outputs.values())
    return LoopBody(steps, inputs, outputs, carried, flags[0], flags[1], bool(counted), bool(conditional))


def _split_attributes(text: str) -> dict[str, str]:
    """The attributes of a line by name; names inside JSON strings are no attributes."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ATTRIBUTE.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text[position:]!r}")
        start, inside = match.end(), False
        position = start
        while position < len(text) and (inside or not _ATTRIBUTE.match(text, position)):
            if text[position] == "\\" and inside:
                position += 1
            elif text[position] == '"':
                inside = not inside
            position += 1
        found[match.group(1)] = text[start:position]
    return found


def _parse_attributes(op: str, dtype: str, shape: tuple[int, ...], attributes: dict[str, str],
                      literals: Mapping[str, Literal]) -> Any:
    """The attribute of a node; `shape` is the one that its indices run over."""
    if op == "INPUT":
        return json.loads(attributes["name"])
    if op == "CONST":
        if "literal" in attributes:
            return literals[json.loads(attributes["literal"])]
        return _parse_literal(attributes["value"], dtype, shape, json.loads(attributes.get("label", '""')))
    if op == "IOTA":
        return parse_index(attributes["index"], shape)
    if op in ("VIEW", "SCATTER"):
        indices = tuple(parse_index(part, shape) for part in _items(attributes["map"]))
        guards = []
        for part in _items(attributes.get("guards", "[]")):
            expression, bound = part.rsplit("<", 1)
            guards.append((parse_index(expression, shape), int(bound)))
        if op == "SCATTER":
            return ScatterMap(indices, tuple(guards), attributes["combine"])
        return ViewMap(indices, tuple(guards), _parse_number(attributes.get("fill", "0")))
    if "axes" in attributes:
        return tuple(json.loads(attributes["axes"]))
    if op == "CONCAT":
        return int(attributes["axis"])
    if op == "LOOP_OUTPUT":
        return int(attributes["number"])
    return dtype if op in ("CAST", "BITCAST") else None


def _items(text: str) -> list[str]:
    return [part for part in text.strip()[1:-1].split(", ") if part]


def _parse_literal(text: str, dtype: str, shape: tuple[int, ...], name: str) -> Literal:
    kind = numpy_dtype(dtype)
    if text.startswith("hex:"):
        return Literal(np.frombuffer(bytes.fromhex(text[4:]), kind).reshape(shape), name)
    return Literal(_parse_values(text[1:-1], kind).reshape(shape), name)
