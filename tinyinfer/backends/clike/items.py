"""Kernels of work-items: their heads, and where a work-item stands on the axes of a grid."""

from __future__ import annotations

from collections.abc import Sequence

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Position
from tinyinfer.backends.clike.kernel import argument_names
from tinyinfer.backends.clike.writer import INDENT, Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.schedule_gpu import Steps, count_of, steps_of
from tinyinfer.runtime.plan import WorkSizes

OFFSET = "_at"
"""What the parameter is called after its array that says where in it the argument begins, in bytes."""


def item_function(
    dialect: Dialect,
    name: str,
    dtypes: tuple[str, ...],
    work: WorkSizes,
    body: Writer,
    images: Sequence[str | bool] = (),
) -> str:
    """The text of a kernel whose argument 0 is written and whose other arguments are read. Each argument is
    an array and where it begins in it, or one of the `images`."""
    names = argument_names(len(dtypes))
    parameters, starts = [], []
    for number, (argument, dtype) in enumerate(zip(names, dtypes)):
        if images and images[number]:
            parameters.append(dialect.image.format(access="read" if number else "write", name=argument))
            continue
        form = dialect.read if number else dialect.written
        memory, const = dialect.types[dtype].memory, "const " if number else ""
        parameters.append(form.format(type=memory, name=argument))
        parameters.append(f"const {dialect.unsigned_wide} {argument}{OFFSET}")
        bytes_of = f"({const}__global uchar *){argument}"
        starts.append(f"{INDENT}{argument} = ({const}__global {memory} *)({bytes_of} + {argument}{OFFSET});")
    head = dialect.head.format(
        name=name, parameters=", ".join(parameters), group=", ".join(map(str, work.group))
    )
    return "\n".join([f"{head} {{", *starts, *body.lines, "}"])


def place_items(
    w: Writer, p: Position, names: dict[Axis, str], steps: Steps, counter: str, wide: bool = False
) -> Position:
    """`p` and the axes of one dimension, of which `counter` is the number of the step.

    With neighbours computed together, an axis's counter is the first of them.
    """
    kind, left = w.index, counter
    for number, (axis, step) in enumerate(reversed(steps)):
        size = steps_of(axis, step)
        if size == 1:
            p = p.at(axis, ((), 0))
            continue
        last = number == len(steps) - 1 or count_of(steps[: len(steps) - 1 - number]) == 1
        text = left if last else f"{left} % {size}"
        if step > 1:
            text = f"({text}) * {step}" if not last else f"{text} * {step}"
        name = names[axis]
        w.do(f"const {kind} {name} = {text};")
        p = p.at(axis, ((name,), 0))
        if not last:
            following = w.name("q")
            w.do(f"const {kind} {following} = {left} / {size};")
            left = following
    return p


def dimension_counter(w: Writer, dimension: int, name: str) -> str:
    """Define the number of a work-item along one dimension."""
    w.do(f"const {w.index} {name} = ({w.index})get_global_id({dimension});")
    return name


def outside(counts: list[int], work: WorkSizes, counters: list[str]) -> str:
    """The condition that a work-item only fills up its group; empty if none does."""
    parts = [f"{c} >= {n}" for n, total, c in zip(counts, work.total, counters) if total > n]
    return " || ".join(parts)
