"""docs/operators.md, made from the op table.

`python -m tinyinfer.frontend.onnx.operators_page > docs/operators.md`
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import onnx

from tinyinfer.backends.registry import device_names
from tinyinfer.frontend.onnx import op_table
from tinyinfer.frontend.onnx.op_table import LAST_OPSET, OP_TABLE, OpEntry, Tolerance, find_op
from tinyinfer.frontend.onnx.operators import register_all
from tinyinfer.frontend.onnx.schema_functions import has_function
from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES
from tinyinfer.ir.dtypes import NUMERIC

TOLERANCES = ("EXACT", "ROUNDED", "TRANSCENDENTAL", "ACCUMULATED", "RECURRENT")

_GROUPS = {
    "floats": ("float16", "bfloat16", "float", "double"),
    "(u)int8…64": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "int8…64": ("int8", "int16", "int32", "int64"),
    "uint8…64": ("uint8", "uint16", "uint32", "uint64"),
    "(u)int2/4": ("int2", "uint2", "int4", "uint4"),
    "float8": ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
    "float6": ("float6e2m3", "float6e3m2"),
    "complex": ("complex64", "complex128"),
}
"""Names for groups of element types; a group is named where all of it is taken."""

_INTRODUCTION = """\
# The operators

Made from the op table by `python -m tinyinfer.frontend.onnx.operators_page > docs/operators.md`; a test
compares. A row holds for every version of the operator that it names. A model with an operator that is not
here is refused, unless it brings a function body for it or you register a function
([custom_operators.md](custom_operators.md)); `tinyinfer check` lists all such nodes of a model.

* **opsets**: versions of the operator's own domain in which the row holds; `13–` is 13 and all later ones.
* **inputs**: the types that are taken: those of ONNX's schema ({release}) that the IR holds, by type
  parameter, or by input where a type stands alone; groups of types have the names below. `seq(…)`,
  `optional(…)` and `map(…)` are what they say. For domains without schemas in the `onnx` package the inputs
  are named (optional ones in brackets), and the operator's rule checks their types.
* **runs as**: how results come about, by types and attributes where there is more than one way.
  * *kernel*: nodes of the three-op IR, fused with their neighbours.
  * *loop*: a loop of the IR, which runs in native code.
  * *host*: a function on the host between kernels. The model is cut there, and shapes may depend on data.
    Moving strings is always the host's.
  * *structure*: decided while the model is imported, at no cost (sequences, optionals, branches).
  * *function*: ONNX's own definition of the operator by others, each of which runs as its row says.
* **tolerance**: the largest error that tests allow, relative to the largest magnitude of an output.
* **devices**: kernels and loops run on every device, {devices}; the host's functions are the same for all.
  QCOM-KGSL refuses loops that end by a condition, and has not run on hardware yet.

{groups}

{tolerances}
"""


def release() -> str:
    """The release of the onnx package, whose schemas the page follows."""
    return "onnx " + ".".join(onnx.__version__.split(".")[:2])


def page() -> str:
    """The text of the page."""
    register_all()
    rows: dict[str, list[tuple[str, int, list[str]]]] = {}
    for (domain, name), entries in OP_TABLE.items():
        if domain.startswith("tinyinfer."):
            continue
        for entry in entries:
            rows.setdefault(domain, []).append((name, entry.since, _row(entry)))
    for domain, name, since, until in _function_ops():
        text = [name, _range(since, until), _schema_types(domain, name, until), "function", "its parts"]
        rows.setdefault(domain, []).append((name, since, text))
    groups = "\n".join(
        ["| group | types |", "|---|---|", *(f"| {n} | {' '.join(m)} |" for n, m in _GROUPS.items())]
    )
    parts = [
        _INTRODUCTION.format(
            release=release(), groups=groups, tolerances=_tolerances(), devices=", ".join(device_names())
        )
    ]
    for domain in sorted(rows):
        found = sorted(rows[domain], key=lambda row: (row[0].lower(), row[1]))
        count = len({name for name, _, _ in found})
        lines = [
            f"## {domain} ({count})",
            "",
            "| operator | opsets | inputs | runs as | tolerance |",
            "|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(cells) + " |" for _, _, cells in found]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(entry: OpEntry) -> list[str]:
    until = entry.until
    inputs = _schema_types(entry.domain, entry.name, until) or _parameters(entry)
    return [entry.name, _range(entry.since, until), inputs, _runs_as(entry), _tolerance_name(entry.tolerance)]


def _range(since: int, until: int) -> str:
    if until >= LAST_OPSET:
        return f"{since}–"
    return str(since) if since == until else f"{since}–{until}"


def _function_ops() -> Iterator[tuple[str, str, int, int]]:
    """Operators of ONNX that only its own function bodies define here, with ranges of opsets."""
    by_name: dict[tuple[str, str], list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.deprecated:
            by_name.setdefault((schema.domain or "ai.onnx", schema.name), []).append(schema.since_version)
    for (domain, name), versions in by_name.items():
        versions.sort()
        since = [v for v in versions if find_op(domain, name, v) is None and has_function(domain, name, v)]
        if since:
            later = [v for v in versions if v > since[-1]]
            yield domain, name, since[0], later[0] - 1 if later else LAST_OPSET


# ---- types


def _schema_types(domain: str, name: str, until: int) -> str:
    """The input types in the newest version of an operator up to `until`; "" where there is no schema."""
    try:
        newest = min(until, 10_000)
        schema = onnx.defs.get_schema(name, newest, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return ""
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    described: dict[str, str] = {}
    for formal in schema.inputs:
        kinds = allowed.get(formal.type_str)
        key = formal.type_str if kinds is not None else formal.name
        described.setdefault(key, _types(kinds if kinds is not None else [formal.type_str]))
    return "; ".join(f"{key}: {text}" for key, text in described.items()) or "none"


_HELD = {text for name, text in ELEMENT_TYPES.values() if name in NUMERIC or name == "object"}


def _types(kinds: Any) -> str:
    tensors: list[str] = []
    others: dict[str, list[str]] = {}
    for kind in kinds:
        outer, _, inner = kind.rpartition("tensor(")
        element = inner.rstrip(")")
        if not kind.startswith("map(") and element not in _HELD:
            continue
        if kind.startswith("map("):
            others.setdefault(kind, [])
        elif outer:
            others.setdefault(outer.rstrip("("), []).append(element)
        else:
            tensors.append(element)
    texts = [_grouped(tensors)] if tensors else []
    for outer, elements in others.items():
        if not elements:
            texts.append(outer)
        else:
            texts.append(f"{outer}({_grouped(elements)})" + ")" * outer.count("("))
    return ", ".join(texts)


def _grouped(elements: list[str]) -> str:
    left = list(dict.fromkeys(elements))
    names = []
    for name, members in _GROUPS.items():
        if all(m in left for m in members):
            names.append(name)
            left = [e for e in left if e not in members]
    return " ".join([*names, *sorted(left)])


def _parameters(entry: OpEntry) -> str:
    """The inputs of a rule as its function names them."""
    function = inspect.unwrap(entry.function)
    texts = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            texts.append(f"{name}…")
        else:
            texts.append(name if parameter.default is parameter.empty else f"[{name}]")
    return ", ".join(texts) or "none"


# ---- how an operator runs


def _runs_as(entry: OpEntry) -> str:
    """From what the rule says that it returns, and from what it can reach."""
    function = inspect.unwrap(entry.function)
    returns = str(function.__annotations__.get("return", "Any"))
    reached = _reached(function)
    whole = returns == "Any"
    ways = []
    if "loop" in reached and ("Node" in returns or whole):
        ways.append("loop")
    if ("Node" in returns or whole) and ("kernel" in reached or not whole):
        ways.insert(0, "kernel")
    if "Frame" in returns:
        ways.append("structure" if entry.name == "If" else "kernel")
    if "SequenceValue" in returns or returns == "Value":
        ways.append("structure")
    if "host" in reached and ("HostCall" in returns or whole):
        ways.append("host")
    return ", ".join(dict.fromkeys(ways)) or "kernel"


@cache
def _reached(function: Callable[..., Any]) -> frozenset[str]:
    """Which of "kernel", "loop" and "host" the code of a function can come to, through what it calls."""
    found: set[str] = set()
    seen: set[Any] = set()
    stack: list[Any] = [function]
    while stack:
        current = inspect.unwrap(stack.pop())
        if current in seen:
            continue
        seen.add(current)
        cells = [c.cell_contents for c in current.__closure__ or () if _is_rule_code(c)]
        stack += [c for c in cells if isinstance(c, types.FunctionType)]
        for name in _names(current.__code__):
            used = current.__globals__.get(name)
            if name in ("host_call", "HostCall"):
                found.add("host")
            elif name == "build":
                found.add("kernel")
            elif isinstance(used, types.FunctionType):
                if used.__module__ == "tinyinfer.ir.loop" and used.__name__ == "loop":
                    found.add("loop")
                elif used.__module__.startswith("tinyinfer.ir."):
                    found.add("kernel")
                elif used.__module__.startswith("tinyinfer.frontend.onnx."):
                    stack.append(used)
    return frozenset(found)


def _is_rule_code(cell: Any) -> bool:
    try:
        return str(getattr(cell.cell_contents, "__module__", "")).startswith("tinyinfer.frontend.onnx.")
    except ValueError:
        return False


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


# ---- tolerances


def _tolerance_name(tolerance: Tolerance) -> str:
    for name in TOLERANCES:
        if getattr(op_table, name) is tolerance:
            return name.lower()
    largest = ", ".join(f"{dtype} {value:g}" for dtype, value in tolerance.by_dtype.items())
    return f"{largest or 'exact'}: {tolerance.reason}"


def _tolerances() -> str:
    lines = ["| name | float64 | float32 | float16 | why |", "|---|---|---|---|---|"]
    for name in TOLERANCES:
        tolerance: Tolerance = getattr(op_table, name)
        values = " | ".join(f"{tolerance[d]:g}" for d in ("float64", "float32", "float16"))
        lines.append(f"| {name.lower()} | {values} | {tolerance.reason} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
