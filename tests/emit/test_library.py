"""Libraries that are made of bundles: what they hold, and that they run, natively and under emulation."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from c_tools import MACHINES, STRICT, Machine, compiled, needed, run
from small_bundle import COLUMNS, ROWS, bundle, expected, kernel_code, plan, small_sections

from tinyinfer.emit.library import emit_library
from tinyinfer.emit.library_source import symbols
from tinyinfer.errors import InvalidArgument, NotFound

HERE = Path(__file__).parent
HOST = MACHINES[0]
FUNCTIONS = {name for name in symbols("small") if name.islower() and name != "small_context"}
ROOTS = {"aarch64": "aarch64-linux-gnu", "armv7": "arm-linux-gnueabihf", "riscv64": "riscv64-linux-gnu"}
"""Where Debian has the libraries of other architectures: /usr/NAME."""

Small = Callable[[Machine], bytes]
Emitted = Callable[..., Path]
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.architecture)
each_kind = pytest.mark.parametrize("kind", ["so", "obj"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """`small(machine)`: the bundle of `small_bundle` for an architecture."""
    made: dict[str, bytes] = {}

    def make(machine: Machine) -> bytes:
        needed(machine.compiler)
        name = machine.architecture
        if name not in made:
            code, offsets = kernel_code([machine.compiler], tmp_path_factory.mktemp(name))
            made[name] = bundle(small_sections([(f"{name}-test", name, plan(name, offsets), code)]))
        return made[name]

    return make


@pytest.fixture(scope="module")
def emitted(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """`emitted(machine, kind)`: the library of the small bundle, with the header beside it."""
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[tuple[str, ...], Path] = {}

    def make(machine: Machine, kind: str, cc: str = "") -> Path:
        key = (machine.architecture, kind, cc.replace("/", "-"))
        if key not in made:
            place = folder / " ".join(key)
            place.mkdir()
            name = "libsmall.so" if kind == "so" else "small.o"
            files = emit_library(small(machine), kind, place / name, cc=cc or None)
            assert files == [place / name, place / "small.h"]
            made[key] = files[0]
        return made[key]

    return make


def tool(machine: Machine, name: str) -> str:
    return machine.compiler.removesuffix("gcc") + name


def defined(machine: Machine, library: Path, *flags: str) -> set[str]:
    listing = run(tool(machine, "nm"), *flags, "--defined-only", library)
    assert listing.returncode == 0, listing.stderr
    return {line.split()[-1] for line in listing.stdout.splitlines() if line.strip()}


def check_program(machine: Machine, kind: str, library: Path, folder: Path) -> None:
    """Compiles and runs c/use_small.c with the library, and compares what it computes."""
    flags = [*STRICT, "-O1", f"-I{library.parent}"]
    command: list[str | Path] = [*machine.runner]
    if kind == "so":
        flags.append(f"-Wl,-rpath,{library.parent}")
        if machine.runner:
            command += ["-L", f"/usr/{ROOTS[machine.architecture]}"]
    elif machine.runner:
        flags.append("-static")
    program = compiled(folder / "use_small", machine.compiler, [HERE / "c" / "use_small.c", library], *flags)
    given, made = folder / "in.bin", folder / "out.bin"
    x = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    given.write_bytes(x.tobytes())
    done = run(*command, program, given, made)
    assert done.returncode == 0, done.stderr
    data = made.read_bytes()
    for wanted in expected(x):
        got = np.frombuffer(data[: wanted.nbytes], wanted.dtype).reshape(wanted.shape)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        data = data[wanted.nbytes :]
    assert not data


@each_machine
@each_kind
def test_a_library_runs(emitted: Emitted, machine: Machine, kind: str, tmp_path: Path):
    needed(*machine.runner[:1])
    check_program(machine, kind, emitted(machine, kind), tmp_path)


@pytest.mark.parametrize("compiler", ["clang-14"])
@each_kind
def test_another_compiler(emitted: Emitted, compiler: str, kind: str, tmp_path: Path):
    needed(compiler)
    library = emitted(HOST, kind, compiler)
    assert defined(HOST, library, *(["-D"] if kind == "so" else ["-g"])) == FUNCTIONS
    check_program(HOST, kind, library, tmp_path)


@each_machine
def test_a_shared_library_shows_its_functions_only(emitted: Emitted, machine: Machine):
    library = emitted(machine, "so")
    assert defined(machine, library, "-D") == FUNCTIONS
    shown = run(tool(machine, "readelf"), "-dlW", library).stdout
    assert "Library soname: [libsmall.so]" in shown
    assert "TEXTREL" not in shown and "NODELETE" in shown
    needs = set(re.findall(r"\(NEEDED\).*\[(.*)\]", shown))
    assert all(re.match(r"lib(c|m|pthread)\.so|ld-linux", name) for name in needs), needs
    assert re.search(r"^ +GNU_STACK .* RW +0x\w+$", shown, re.MULTILINE)
    for flags in re.findall(r"^ +LOAD .* 0x\w+ ([RWE ]+) 0x\w+$", shown, re.MULTILINE):
        assert not {"W", "E"} <= set(flags)


@each_machine
def test_an_object_has_its_functions_only(emitted: Emitted, machine: Machine):
    library = emitted(machine, "obj")
    assert defined(machine, library, "-g") == FUNCTIONS
    sections = run(tool(machine, "readelf"), "-SW", library).stdout
    assert re.search(r"\.note\.GNU-stack +PROGBITS +0+ \w+ 0+ 00 +0 ", sections)


@each_machine
def test_a_library_is_small(small: Small, emitted: Emitted, machine: Machine):
    held = small(machine)
    listing = run(tool(machine, "size"), emitted(machine, "so")).stdout.splitlines()[1].split()
    text, data = map(int, listing[:2])
    assert text + data - len(held) <= 64 << 10


@pytest.mark.parametrize(
    "machine, flag", [(MACHINES[0], "-fcf-protection=full"), (MACHINES[1], "-mbranch-protection=standard")]
)
def test_no_promise_about_indirect_calls(emitted: Emitted, machine: Machine, flag: str):
    needed(machine.compiler)
    library = emitted(machine, "obj", f"{machine.compiler} {flag}")
    notes = run(tool(machine, "readelf"), "-nW", library)
    assert notes.returncode == 0 and not re.search(r"\b(IBT|BTI)\b", notes.stdout)


@each_kind
def test_what_two_calls_make_is_the_same(small: Small, emitted: Emitted, kind: str, tmp_path: Path):
    first = emitted(HOST, kind)
    second = emit_library(small(HOST), kind, tmp_path / first.name)[0]
    assert first.read_bytes() == second.read_bytes()


def test_the_header_is_c_and_cpp(emitted: Emitted, tmp_path: Path):
    needed("g++")
    folder = emitted(HOST, "obj").parent
    source = tmp_path / "user.cpp"
    source.write_text('#include "small.h"\nint main() { return SMALL_OK; }\n', encoding="ascii")
    strict = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
    for compiler in (["g++", "-std=c++17"], ["gcc", "-std=c11", "-xc"]):
        done = run(*compiler, *strict, "-fsyntax-only", f"-I{folder}", source)
        assert done.returncode == 0, done.stderr
    header = (folder / "small.h").read_text(encoding="ascii")
    assert "int small_run(const float *x, const int32_t *mode, float *y, float *state, int64_t *n);" in header


def test_two_libraries_in_one_process(small: Small, tmp_path: Path):
    loaded = []
    x = np.random.default_rng(4).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    for name in ("first", "second"):
        path = tmp_path / f"lib{name}.so"
        emit_library(small(HOST), "so", path)
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        loaded.append({f: getattr(library, f"{name}_{f}") for f in ("init", "run", "close", "error")})
    assert [functions["init"](2) for functions in loaded] == [0, 0]
    wanted = expected(x)
    for functions in (*loaded, *loaded):
        outputs = [np.zeros_like(array) for array in wanted]
        arrays = [x, np.array([3], np.int32), *outputs]
        assert functions["run"](*(array.ctypes.data_as(ctypes.c_void_p) for array in arrays)) == 0
        for got, right in zip(outputs, wanted):
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)
    assert loaded[0]["close"]() == 0
    assert loaded[1]["init"](1) == 7
    loaded[1]["error"].restype = ctypes.c_char_p
    assert loaded[1]["error"]() == b"second_init: it runs already; second_close ends it"


def test_threads_run_at_once(emitted: Emitted):
    library = ctypes.CDLL(str(emitted(HOST, "so")))
    library.small_context_open.restype = ctypes.c_void_p
    assert library.small_init(2) == 0
    random = np.random.default_rng(5)
    mode = np.array([3], np.int32)

    def work(number: int) -> None:
        """Every other thread has a context; the others share the model."""
        context = library.small_context_open(1 + number % 3) if number % 2 else None
        for _ in range(50):
            x = random_inputs[number]
            outputs = [np.zeros_like(array) for array in wanted[number]]
            arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, mode, *outputs)]
            if context is None:
                assert library.small_run(*arrays) == 0
            else:
                assert library.small_context_run(ctypes.c_void_p(context), None, *arrays) == 0
            for got, right in zip(outputs, wanted[number]):
                np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)
        library.small_context_close(ctypes.c_void_p(context))

    random_inputs = [random.standard_normal((ROWS, COLUMNS)).astype(np.float32) for _ in range(6)]
    wanted = [expected(x) for x in random_inputs]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert library.small_close() == 0


def test_targets_are_tried_in_order(small: Small, tmp_path: Path):
    needed("gcc")
    code, offsets = kernel_code(["gcc"], tmp_path)

    def library(name: str, *features: int) -> ctypes.CDLL:
        targets = [
            (f"t{bits:x}", HOST.architecture, plan(HOST.architecture, offsets, bits), code)
            for bits in features
        ]
        path = tmp_path / f"{name}.so"
        emit_library(bundle(small_sections(targets)), "so", path)
        return ctypes.CDLL(str(path))

    assert library("both", 1 << 40, 0).both_verify() == 0
    none = library("none", 1 << 40)
    none.none_error.restype = ctypes.c_char_p
    assert none.none_init(0) == 5
    assert b"no target" in none.none_error() and none.none_error().endswith(b"needs feature 40")


@pytest.mark.parametrize("name", ["ti", "library", "TI"])
def test_names_of_the_runtime_are_refused(small: Small, name: str, tmp_path: Path):
    with pytest.raises(InvalidArgument, match=f"a library cannot be called '{name}'"):
        emit_library(small(HOST), "so", tmp_path / "x.so", name)
    assert not list(tmp_path.iterdir())


def test_a_bundle_for_two_architectures(tmp_path: Path):
    targets = []
    for machine in MACHINES[:2]:
        needed(machine.compiler)
        code, offsets = kernel_code([machine.compiler], tmp_path)
        name = machine.architecture
        targets.append((name, name, plan(name, offsets), code))
    with pytest.raises(InvalidArgument, match="for one architecture; the bundle holds .* x86_64, aarch64"):
        emit_library(bundle(small_sections(targets)), "so", tmp_path / "x.so")


def test_no_compiler(small: Small, tmp_path: Path):
    with pytest.raises(NotFound, match="no C compiler 'no-such-cc -O2' on this machine"):
        emit_library(small(HOST), "so", tmp_path / "x.so", cc="no-such-cc -O2")
