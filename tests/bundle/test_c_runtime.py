"""The C runtime: how it builds, and that it runs a bundle on each architecture."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_tools import MACHINES, REPOSITORY, RUNTIME, STRICT, Machine, compiled, needed, run
from small_bundle import COLUMNS, ROWS, bundle, expected, kernel_code, plan, rehashed, small_sections

SOURCE = RUNTIME / "tinyinfer.c"
EXAMPLE = REPOSITORY / "examples" / "run_bundle.c"
HOST, *OTHERS = MACHINES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c_runtime")


def small_bundle(machine: Machine, folder: Path) -> bytes:
    needed(machine.compiler)
    code, offsets = kernel_code([machine.compiler], folder)
    target = (f"{machine.architecture}-test", machine.architecture, plan(machine.architecture, offsets), code)
    return bundle(small_sections([target]))


@pytest.fixture(scope="module")
def runner(folder: Path) -> Path:
    return compiled(folder / "run_bundle", "gcc", [EXAMPLE, SOURCE], "-O2", *STRICT)


@pytest.fixture(scope="module")
def host_bundle(folder: Path) -> bytes:
    return small_bundle(HOST, folder)


@pytest.mark.parametrize("compiler", ["gcc", "clang-14", *(m.compiler for m in OTHERS)])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_no_warning(compiler: str, level: str, tmp_path: Path):
    needed(compiler)
    done = run(compiler, *STRICT, level, "-c", SOURCE, "-o", tmp_path / "tinyinfer.o")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.architecture)
def test_a_stripped_object_has_at_most_64_kib(machine: Machine, tmp_path: Path):
    needed(machine.compiler)
    made = tmp_path / "tinyinfer.o"
    subprocess.run([machine.compiler, "-std=c11", "-O2", "-c", str(SOURCE), "-o", str(made)], check=True)
    subprocess.run([machine.compiler.removesuffix("gcc") + "strip", str(made)], check=True)
    assert made.stat().st_size <= 64 << 10


def test_both_files_have_at_most_1500_lines():
    lines = [
        line for name in ("tinyinfer.h", "tinyinfer.c") for line in (RUNTIME / name).read_text().splitlines()
    ]
    assert len(lines) <= 1500 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.architecture)
def test_a_bundle_runs(machine: Machine, threads: int, tmp_path: Path):
    needed(*machine.runner[:1])
    flags = ["-O2", *machine.flags, *(["-static"] if machine.runner else [])]
    program = compiled(tmp_path / "run_bundle", machine.compiler, [EXAMPLE, SOURCE], *flags)
    path, given, made = tmp_path / "small.tinf", tmp_path / "in.bin", tmp_path / "out.bin"
    path.write_bytes(small_bundle(machine, tmp_path))
    command = [*machine.runner, program, path]
    verified = run(*command, "verify", "--threads", str(threads))
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count(" 0 failed") == 3
    x = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    given.write_bytes(x.tobytes() + struct.pack("<i", 3))
    done = run(*command, "run", given, made, "--threads", str(threads))
    assert done.returncode == 0, done.stderr
    data = made.read_bytes()
    for wanted in expected(x):
        got = np.frombuffer(data[: wanted.nbytes], wanted.dtype).reshape(wanted.shape)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        data = data[wanted.nbytes :]
    assert not data


def test_what_a_bundle_says_of_itself(runner: Path, host_bundle: bytes, tmp_path: Path):
    path = tmp_path / "small.tinf"
    path.write_bytes(host_bundle)
    shown = run(runner, path, "info")
    assert "input x float32 [8, 16] 512 bytes" in shown.stdout
    assert "output n int64 [] 8 bytes" in shown.stdout
    assert "arena 832 bytes" in shown.stdout and 'manifest {"inputs":[]}' in shown.stdout


def test_a_failing_golden_vector(runner: Path, host_bundle: bytes, tmp_path: Path):
    wrong = bytearray(host_bundle)
    golden = host_bundle.index(struct.pack("<IIII", 1, 2, 3, 0))
    at = struct.unpack_from("<Q", wrong, golden + 16 + 48 * 2 + 40)[0]
    wrong[golden + at + 3] ^= 0x80  # the sign of the first element
    path = tmp_path / "small.tinf"
    path.write_bytes(rehashed(bytes(wrong)))
    done = run(runner, path, "verify")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "small.tinf: 1 of 60 elements of its golden vectors failed, the first in 'y'"
    )


def test_an_input_of_another_value(runner: Path, host_bundle: bytes, tmp_path: Path):
    path, given = tmp_path / "small.tinf", tmp_path / "in.bin"
    path.write_bytes(host_bundle)
    given.write_bytes(bytes(512) + struct.pack("<i", 4))
    done = run(runner, path, "run", given, tmp_path / "out.bin")
    assert done.returncode == 2
    assert done.stderr.endswith("small.tinf: 'mode' is not the value that the bundle was made for\n")


def test_the_first_target_that_the_machine_can_run(runner: Path, folder: Path, tmp_path: Path):
    code, offsets = kernel_code(["gcc"], folder)

    def opened(
        *targets: tuple[str, str, int], options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        texts = [(name, arch, plan(arch, offsets, features), code) for name, arch, features in targets]
        path = tmp_path / "model.tinf"
        path.write_bytes(bundle(small_sections(texts)))
        return run(runner, path, "info", *options)

    future, plain = ("x86_64-next", "x86_64", 1 << 40), ("x86_64-v1", "x86_64", 0)
    phone = ("aarch64-v8.2", "aarch64", 1)
    assert "target x86_64-v1\n" in opened(phone, future, plain).stdout
    none = opened(phone, future).stderr
    assert "model.tinf: no target for this machine (x86_64 with " in none
    assert none.endswith("): aarch64-v8.2 is for aarch64; x86_64-next needs feature 40\n")
    forced = opened(plain, phone, options=("--target", "aarch64-v8.2")).stderr
    assert forced.endswith("): x86_64-v1 is not aarch64-v8.2; aarch64-v8.2 is for aarch64\n")


def test_a_file_that_is_none(runner: Path, tmp_path: Path):
    assert "missing.tinf: No such file or directory\n" in run(runner, tmp_path / "missing.tinf").stderr
    assert "an empty file, or none that can be mapped" in run(runner, tmp_path).stderr
