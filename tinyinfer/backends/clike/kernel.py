"""A kernel as a function: its head, its parameters, and the type that its counters need."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import fits_int32
from tinyinfer.backends.clike.writer import INDENT, Writer
from tinyinfer.ir.index import Index, Slot, atoms_of

WRITTEN = "out"


def argument_names(count: int) -> list[str]:
    """The names of a kernel's parameters: what it writes, then what it reads."""
    return [WRITTEN, *(f"in{i}" for i in range(1, count))]


def counter_type(dialect: Dialect, indices: Iterable[Index]) -> str:
    """The narrowest type that holds all indices but those that data decide."""
    short = all(fits_int32(i) for i in indices if not any(isinstance(a, Slot) for a in atoms_of(i)))
    return dialect.index if short else dialect.wide_index


def function(dialect: Dialect, name: str, dtypes: tuple[str, ...], body: Writer) -> str:
    """The text of a kernel whose argument 0 is written and whose other arguments are read."""
    names = argument_names(len(dtypes))
    parameters = []
    for number, (argument, dtype) in enumerate(zip(names, dtypes)):
        form = dialect.read if number else dialect.written
        parameters.append(form.format(type=dialect.types[dtype].memory, name=argument))
    text = "\n".join(body.lines)
    unused = [f"{INDENT}(void){n};" for n in names if not re.search(rf"\b{n}\b", text)]
    head = dialect.head.format(name=name, parameters=", ".join(parameters))
    return "\n".join([f"{head} {{", *unused, text, "}"])
