"""A bundle as a shared library or a relocatable object, with a header of typed functions.

The runtime, the functions of the header and the bundle are one translation unit, in which everything but
those functions is static: any number of such libraries can be in one process. The machine code of the bundle
becomes a part of the text section, so that nothing executable is made at run time; all else of the bundle is
constant data.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from tinyinfer.bundle.container import CRITICAL, Container, Entry, Section, write_bundle
from tinyinfer.bundle.plan_reader import read_plan
from tinyinfer.bundle.plan_section import PlanSection
from tinyinfer.bundle.weights import Weights
from tinyinfer.emit.c_compiler import find_c_compiler
from tinyinfer.emit.c_names import identifier
from tinyinfer.emit.library_source import Blob, Interface, header, own_words, source, symbols
from tinyinfer.errors import InvalidArgument

RUNTIME = Path(__file__).resolve().parents[1] / "bundle" / "c"
"""The folder of the C runtime's sources."""

ENDINGS = {"so": ".so", "obj": ".o"}
"""What can be made, and how its file is called."""

SOURCE = "library.c"

COMPILE = ("-std=c11", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread")
LINK = (
    *("-shared", "-s"),
    "-Wl,--as-needed",
    *(f"-Wl,-z,{word}" for word in ("noexecstack", "relro", "now", "defs")),
    # threads of a library that is closed without `NAME_close` go on in its code: it stays where it is
    "-Wl,-z,nodelete",
)


def emit_library(
    bundle: Any,
    kind: str,
    output: str | os.PathLike[str],
    name: str | None = None,
    cc: str | None = None,
) -> list[Path]:
    """Compile a bundle (path or bytes) to a shared library ("so") or a relocatable object ("obj") at
    `output`, with its header beside it. Returns the files that were written.

    `name` begins the names of the header and of all functions; without it, it is made of the output's name.
    The targets of the bundle, all of one architecture, become parts of the library, and the first one that a
    machine can run is used there. Sections that running does not need are left out, a signature with them.
    `cc` is a C compiler's command (see `find_c_compiler`). Raises InvalidBundle, InvalidArgument, NotFound
    where there is no compiler, Fail where it does not succeed, and OSError.
    """
    if kind not in ENDINGS:
        raise InvalidArgument(f"libraries are of kind {' or '.join(ENDINGS)}, not {kind!r}")
    output = Path(output)
    container = Container.open(bundle)
    plans = _plans(container)
    architectures = list(dict.fromkeys(plan.architecture for plan in plans))
    if len(architectures) > 1:
        raise InvalidArgument(
            f"a library is made for one architecture; the bundle holds targets for {', '.join(architectures)}"
        )
    compiler = find_c_compiler(architectures[0], cc)
    stem = output.name.partition(".")[0]
    prefix = identifier(name if name is not None else stem.removeprefix("lib"), "model")
    _check_name(prefix)
    codes = container.all("CODE")
    blobs = [_blob("bundle", _without_code(container))]
    blobs += [_blob(f"code_{entry.group}", container.data(entry).tobytes()) for entry in codes]
    arena = max(plan.plan.arena_bytes for plan in plans)
    fixed = {number for plan in plans for number in plan.fixed}
    interface = Interface(
        prefix,
        _about(container),
        architectures[0],
        plans[0].plan.inputs,
        plans[0].plan.outputs,
        fixed,
        arena,
        [entry.name for entry in codes],
    )
    texts = {f"{prefix}.h": header(interface), SOURCE: source(interface, blobs)}
    header_path = output.with_name(f"{prefix}.h")
    with tempfile.TemporaryDirectory(dir=output.resolve().parent, prefix=f".{output.name}.") as folder:
        place = Path(folder)
        for file, text in texts.items():
            (place / file).write_text(text, encoding="ascii")
        for blob in blobs:
            (place / blob.file).write_bytes(blob.data)
        link = ["-c"] if kind == "obj" else [*LINK, f"-Wl,-soname,{output.name}"]
        libraries = [] if kind == "obj" else ["-lm"]
        arguments = [*COMPILE, *link, "-I", str(RUNTIME), SOURCE, *libraries, "-o", "made"]
        compiler.run(arguments, place)
        os.replace(place / "made", output)
        os.replace(place / header_path.name, header_path)
    return [output, header_path]


def _plans(container: Container) -> list[PlanSection]:
    """The plan of each target; their inputs and outputs are the same."""
    stored = Weights(container).stored
    plans = []
    for entry in container.all("PLAN"):
        code = _code(container, entry)
        where = f"{container.label}: {entry.title}"
        plans.append(read_plan(container.data(entry), code.size, stored, where))
    if not plans:
        raise InvalidArgument(f"{container.label}: holds no target")
    first = plans[0].plan
    for other in plans[1:]:
        if (other.plan.inputs, other.plan.outputs) != (first.inputs, first.outputs):
            raise InvalidArgument(f"{container.label}: its targets differ in their inputs or outputs")
    return plans


def _code(container: Container, plan: Entry) -> Entry:
    found = container.get("CODE", plan.group)
    assert found is not None  # the container checked it
    return found


def _without_code(container: Container) -> bytes:
    """The bundle with the code held elsewhere, and without what the runtime does not look at."""
    kept = [e for e in container.entries if e.flags & CRITICAL and e.kind != "SIGN"]
    return write_bundle(
        Section(e.kind, container.data(e), e.group, e.name, True, e.kind == "CODE") for e in kept
    )


def _blob(symbol: str, data: bytes) -> Blob:
    """The file is called by its content: compilers that keep results know the source by its text only."""
    return Blob(symbol, data, f"{hashlib.sha256(data).hexdigest()[:32]}.bin")


def _about(container: Container) -> str:
    """The model's name where the manifest has one."""
    entry = container.get("MANI")
    assert entry is not None  # the container checked it
    try:
        return str(json.loads(container.data(entry).tobytes())["model"]["name"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _check_name(prefix: str) -> None:
    """Refuses a name whose functions or macros would be those of the runtime."""
    texts = [(RUNTIME / file).read_text(encoding="utf-8") for file in ("tinyinfer.h", "tinyinfer.c")]
    words = own_words().union(*(re.findall(r"\w+", text) for text in texts))
    clash = [symbol for symbol in symbols(prefix) if symbol in words]
    if clash:
        raise InvalidArgument(f"a library cannot be called {prefix!r}: the runtime has a {clash[0]} too")
