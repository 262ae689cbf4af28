"""Programs of drivers in bundles: who takes them, who does not, and that the source always serves."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_tools import REPOSITORY, RUNTIME, compiled, run
from opencl_tools import needed_opencl
from small_models import affine

from tinyinfer import InferenceSession, config
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container, Section, save_bundle
from tinyinfer.bundle.programs import HEADER, RECORD, add_program, read_programs, write_programs
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.errors import InvalidArgument, InvalidBundle

X = {"x": np.array([[1, 2, 3]], np.float32)}
DIGESTS = [hashlib.sha256(bytes([n])).digest() for n in range(3)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "plain.tinf"
    build_bundle(affine(), find_targets(["OPENCL", "CPU"]), path)
    return path


@pytest.fixture(scope="module")
def kept(plain: Path) -> Path:
    """The same with the program of the device here."""
    needed_opencl()
    path = plain.with_name("kept.tinf")
    shutil.copy(plain, path)
    assert verify_bundle(path, devices=["OPENCL"], keep_program=True).program_bytes > 0
    return path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What programs are made of from here on, with a kernel cache that is empty."""
    import pyopencl

    made: list[str] = []
    real = pyopencl.Program

    def program(*arguments: object) -> object:
        made.append("source" if len(arguments) == 2 else "a binary")
        return real(*arguments)

    monkeypatch.setattr(pyopencl, "Program", program)
    monkeypatch.setenv(config.CACHE_VARIABLE, str(tmp_path / "cache"))
    return made


def _results(path: Path) -> list[list[float]]:
    return [x.tolist() for x in InferenceSession(path, providers=["OPENCL"]).run(None, X)]


def _programs(path: Path) -> dict[bytes, bytes]:
    container = Container.open(path)
    entry = container.get("CLBN", 1)
    return read_programs(container.data(entry)) if entry is not None else {}


def _changed(path: Path, to: Path, change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Path:
    """A copy whose programs are changed ones."""
    shutil.copy(path.with_name("plain.tinf"), to)
    for digest, binary in _programs(path).items():
        add_program(to, "opencl", *change(digest, binary))
    return to


def test_the_section_comes_back():
    programs = dict(zip(DIGESTS, (b"a", b"bc" * 100, b"d")))
    data = write_programs(programs)
    assert read_programs(np.frombuffer(data, np.uint8)) == programs
    for size in range(len(data)):
        found = read_programs(np.frombuffer(data[:size], np.uint8))
        assert all(programs[digest] == binary for digest, binary in found.items())
    outside = HEADER.pack(9) + RECORD.pack(DIGESTS[0], 60, 1 << 63) + RECORD.pack(DIGESTS[1], 1 << 63, 4)
    assert read_programs(np.frombuffer(outside, np.uint8)) == {}


def test_a_program_spares_the_source(plain: Path, kept: Path, built: list[str]):
    wanted = _results(plain)
    assert built == ["source"]
    config.cache_directory().rename(config.cache_directory().with_name("old"))
    assert _results(kept) == wanted
    assert built == ["source", "a binary"]


def test_a_foreign_program_is_left_alone(plain: Path, kept: Path, built: list[str], tmp_path: Path):
    path = _changed(kept, tmp_path / "foreign.tinf", lambda digest, binary: (DIGESTS[0], binary))
    assert verify_bundle(path, devices=["OPENCL"]).passed
    assert built == ["source"]


def test_a_program_that_the_driver_refuses(kept: Path, built: list[str], tmp_path: Path):
    path = _changed(kept, tmp_path / "refused.tinf", lambda digest, binary: (digest, b"nothing that runs"))
    assert verify_bundle(path, devices=["OPENCL"]).passed
    assert built == ["a binary", "source"]


def test_damage_is_found(kept: Path, tmp_path: Path):
    content = bytearray(kept.read_bytes())
    entry = Container.open(kept).get("CLBN", 1)
    assert entry is not None
    content[entry.offset + entry.size - 1] ^= 1
    (tmp_path / "damaged.tinf").write_bytes(content)
    with pytest.raises(InvalidBundle, match=r"CLBN \(1\) does not match its SHA-256"):
        InferenceSession(tmp_path / "damaged.tinf", providers=["OPENCL"])


def test_programs_of_several_drivers(plain: Path, tmp_path: Path):
    path = tmp_path / "several.tinf"
    shutil.copy(plain, path)
    for digest, binary in zip(DIGESTS, (b"1", b"22", b"333")):
        add_program(path, "opencl", digest, binary)
    size = add_program(path, "opencl", DIGESTS[1], b"4444")
    assert size == path.stat().st_size
    assert _programs(path) == dict(zip(DIGESTS, (b"1", b"4444", b"333")))
    before, after = Container.open(plain), Container.open(path)
    others = [(e.kind, e.group, e.name, e.flags, e.sha256) for e in after.entries if e.kind != "CLBN"]
    assert others == [(e.kind, e.group, e.name, e.flags, e.sha256) for e in before.entries]
    with pytest.raises(InvalidArgument, match="holds no target 'qcom:a630'"):
        add_program(path, "qcom:a630", DIGESTS[0], b"1")


def test_a_signed_bundle_is_signed_again(plain: Path, tmp_path: Path):
    ed25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519", reason="no cryptography"
    )
    from cryptography.hazmat.primitives import serialization

    from tinyinfer.bundle.signature import signer

    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path = tmp_path / "signed.tinf"
    build_bundle(affine(), find_targets(["OPENCL"]), path, BuildOptions(golden=False, signer=signer(pem)))
    with pytest.raises(InvalidArgument, match="is signed, .*sign it again"):
        add_program(path, "opencl", DIGESTS[0], b"1")
    add_program(path, "opencl", DIGESTS[0], b"1", signer(pem))
    assert Container.open(path, require_signature=True).get("CLBN", 1) is not None


def test_processors_have_none(plain: Path, tmp_path: Path):
    shutil.copy(plain, tmp_path / "cpu.tinf")
    with pytest.raises(InvalidArgument, match="CPU has no program of target x86_64.* to keep"):
        verify_bundle(tmp_path / "cpu.tinf", keep_program=True)
    assert (tmp_path / "cpu.tinf").read_bytes() == plain.read_bytes()


def test_a_target_for_the_device_here_has_its_program(tmp_path: Path, built: list[str]):
    needed_opencl()
    build_bundle(affine(), find_targets(["opencl:0"]), tmp_path / "here.tinf")
    built.clear()
    config.cache_directory().rename(tmp_path / "old")
    assert verify_bundle(tmp_path / "here.tinf", devices=["opencl:0"]).passed
    assert built == ["a binary"]


# ---- the C launcher


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [REPOSITORY / "examples" / "run_bundle.c", RUNTIME / "tinyinfer_opencl.c"]
    flags = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    folder = tmp_path_factory.mktemp("programs_c")
    return compiled(folder / "run_bundle", "gcc", sources, *flags, "-DWITH_OPENCL", "-ldl")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).parent / "c" / "fake_opencl.c"
    made = tmp_path_factory.mktemp("programs_fake") / "libfake.so"
    return compiled(made, "gcc", [source], "-O1", "-g", "-shared", "-fPIC")


def test_the_launcher_spares_the_source(plain: Path, kept: Path, runner: Path, tmp_path: Path):
    source = Path(__file__).parent / "c" / "no_source.c"
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", "-l:libOpenCL.so.1"]
    library = compiled(tmp_path / "libnosource.so", "gcc", [source], *flags)
    words = ["verify", "--opencl", "0", "--library", str(library)]
    refused = run(runner, plain, *words, ASAN_OPTIONS="detect_leaks=0")
    assert refused.returncode == 2 and "there is no compiler" in refused.stderr
    done = run(runner, kept, *words, ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode == 0, done.stdout + done.stderr


OPTIONS = "-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt"


def _for_the_fake(path: Path, to: Path, version: str = "OpenCL 1.2") -> tuple[Path, bytes]:
    """A copy with a program for the library of the tests, and its digest."""
    container = Container.open(path)
    code = container.get("CODE", 1)
    assert code is not None
    source = container.data(code).tobytes()
    texts = [b"OpenCL 1.2 fake", b"Fake GPU", version.encode(), b"7", OPTIONS.encode(), source]
    digest = hashlib.sha256(b"".join(text + b"\0" for text in texts)).digest()
    shutil.copy(path, to)
    add_program(to, "opencl", digest, b"BUILT " + source)
    return to, digest


def test_the_launcher_and_other_drivers(plain: Path, runner: Path, fake: Path, tmp_path: Path):
    path, digest = _for_the_fake(plain, tmp_path / "fake.tinf")

    def built(of: Path, **environment: str) -> list[str]:
        words = ["info", "--opencl", "", "--library", str(fake)]
        done = run(runner, of, *words, FAKE_TELL="1", **environment)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("built")]

    assert built(path) == [f"built a binary: {OPTIONS}"]
    assert built(path, FAKE_VERSION="OpenCL 3.0") == [f"built source: {OPTIONS}"]
    for call in ("clCreateProgramWithBinary:1", "clBuildProgram:1"):
        assert built(path, FAKE_FAIL=call)[-1] == f"built source: {OPTIONS}"
    for place, size in ((1 << 40, 9), (1 << 63, 1 << 63), (64, 0), (60, 1 << 62)):
        shutil.copy(plain, path)
        add_program(path, "opencl", digest, b"?" * 40)
        container = Container.open(path)
        entry = container.get("CLBN", 1)
        assert entry is not None
        _replace_section(path, entry.kind, HEADER.pack(1) + RECORD.pack(digest, place, size) + b"?" * 40)
        assert built(path) == [f"built source: {OPTIONS}"]
    _replace_section(path, "CLBN", HEADER.pack(1 << 31) + RECORD.pack(DIGESTS[0], 64, 1))
    assert built(path) == [f"built source: {OPTIONS}"]


def _replace_section(path: Path, kind: str, content: bytes) -> None:
    container = Container.open(path)
    sections = [
        Section(e.kind, content if e.kind == kind else container.data(e).tobytes(), e.group, e.name)
        for e in container.entries
    ]
    save_bundle(path, sections, minor=container.minor)
