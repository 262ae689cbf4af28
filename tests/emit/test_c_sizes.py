"""RAM and ROM of emitted C, as they are known, as they are measured, and as the toolchain of a Cortex-M
prints them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_programs import STRICT, command, tool, write
from test_c_models import plan_of_model

from tinyinfer.backends.clike.printer import MICROCONTROLLER
from tinyinfer.config import CompileOptions
from tinyinfer.emit.c_size import Sizes, measure, report
from tinyinfer.emit.c_source import COptions, CSource, emit_c, plan_for_c
from tinyinfer.errors import RuntimeException
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph

CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")

MAIN = """\
#include "model.h"
#include <stdio.h>
int main(void) {
    static float in[MODEL_INPUT_INPUT_SIZE], out[MODEL_OUTPUT_OUTPUT_SIZE];
    if (fread(in, sizeof in, 1, stdin) != 1 || model_run(in, out) != MODEL_OK) {
        return 1;
    }
    return fwrite(out, sizeof out, 1, stdout) == 1 ? 0 : 1;
}
"""


@pytest.fixture(scope="module")
def keywords(filled_model, model_feeds) -> CSource:
    """kws_dscnn_l for a microcontroller."""
    feeds = model_feeds("kws_dscnn_l")
    return emit_c(plan_of_model(filled_model("kws_dscnn_l"), feeds, MICROCONTROLLER))


def test_a_cortex_m_takes_what_is_said(keywords, tmp_path):
    compiler = [tool("arm-none-eabi-gcc"), *CORTEX_M4, "-O2"]
    sizes = measure(keywords, compiler)
    assert sizes.ram == sizes.bss == keywords.ram_bytes
    assert keywords.weight_bytes < sizes.rom < keywords.weight_bytes + 16000
    objects = []
    for file in write(keywords, tmp_path):
        objects.append(tmp_path / f"{file.name}.o")
        command([*compiler, *STRICT, "-c", file, "-o", objects[-1]])
    printed = command([tool("arm-none-eabi-size"), "-t", *objects]).splitlines()[-1].split()
    assert [int(n) for n in printed[:3]] == [sizes.text, sizes.data, sizes.bss]
    said = "\n".join(report(keywords, sizes))
    assert f"RAM {keywords.ram_bytes} bytes, ROM {sizes.rom} bytes" in said and "arm-none-eabi-gcc" in said


def test_nothing_but_mathematics_is_linked(keywords, tmp_path):
    compiler = [tool("arm-none-eabi-gcc"), *CORTEX_M4, "-O2"]
    source = write(keywords, tmp_path)[0]
    command([*compiler, "-std=c11", "-c", source, "-o", tmp_path / "model.o"])
    symbols = command([tool("arm-none-eabi-nm"), "-u", tmp_path / "model.o"]).split()[1::2]
    assert all(s.startswith("model_w") or s in ("memcpy", "memmove", "memset", "fmaf") for s in symbols), (
        symbols
    )


def test_an_arm_processor_computes_the_same(keywords, filled_model, model_feeds, tmp_path):
    import tinyinfer

    emulator, compiler = tool("qemu-arm-static"), tool("arm-linux-gnueabihf-gcc")
    files = write(keywords, tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    flags = [*STRICT, "-O2", "-mthumb", "-mfpu=vfpv4-d16", "-static"]
    command([compiler, *flags, "-o", tmp_path / "model", tmp_path / "main.c", *files, "-lm"])
    feeds = model_feeds("kws_dscnn_l")
    done = subprocess.run([emulator, tmp_path / "model"], input=feeds["input"].tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    (wanted,) = tinyinfer.InferenceSession(str(filled_model("kws_dscnn_l"))).run(None, feeds)
    got = np.frombuffer(done.stdout, np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def test_a_microcontroller_without_an_operating_system_computes_the_same(
    keywords, filled_model, model_feeds, tmp_path
):
    import tinyinfer

    emulator, compiler = tool("qemu-system-arm"), tool("arm-none-eabi-gcc")
    files, board = write(keywords, tmp_path), Path(__file__).parent / "cortex_m4"
    flags = ["-std=c11", *CORTEX_M4, "-O2", "--specs=rdimon.specs", f"-I{tmp_path}", "-T", board / "board.ld"]
    command([compiler, *flags, "-o", tmp_path / "model.elf", board / "main.c", *files, "-lm"])
    feeds = model_feeds("kws_dscnn_l")
    (tmp_path / "in.bin").write_bytes(feeds["input"].tobytes())
    machine = [emulator, "-M", "mps2-an386", "-nographic", "-semihosting-config", "enable=on,target=native"]
    done = subprocess.run([*machine, "-kernel", "model.elf"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wanted,) = tinyinfer.InferenceSession(str(filled_model("kws_dscnn_l"))).run(None, feeds)
    got = np.frombuffer((tmp_path / "out.bin").read_bytes(), np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("weights", ["array", "binary"])
def test_this_machines_sizes(weights):
    x = build.input_node("x", (8, 64), "float32")
    w = build.constant(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32))
    y = build.matmul(
        build.elementwise("TANH", build.matmul(x, w)), build.constant(np.eye(64, dtype=np.float32))
    )
    source = emit_c(plan_for_c(Graph({"x": x}, {"y": y}), CompileOptions()), options=COptions(weights))
    sizes = measure(source, [tool("gcc"), "-O2"])
    assert sizes.ram == source.ram_bytes > 0
    assert source.weight_bytes == 2 * 64 * 64 * 4 and sizes.rom > source.weight_bytes


def test_without_a_compiler_the_report_says_what_it_does_not_count():
    source = CSource({}, 0, 640, 1000)
    lines = report(source, None)
    assert "weights 1000 bytes" in lines[0] and "arena of the caller 640" in lines[0]
    assert "no C compiler" in lines[1]
    assert any("RAM 12 bytes, ROM 40 bytes" in line for line in report(source, Sizes(30, 10, 2, "cc")))


def test_a_compiler_that_fails_is_named():
    source = CSource({"model.c": "int x = ;\n"}, 0, 0, 0)
    with pytest.raises(RuntimeException, match="failed on the emitted C.*error"):
        measure(source, [tool("gcc")])
    with pytest.raises(RuntimeException, match="no-such-compiler cannot be run"):
        measure(source, ["no-such-compiler"])
