"""One file for five architectures: real models pass their golden vectors on each of them (`-m sweep`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_tools import MACHINES, REPOSITORY, RUNTIME, compiled, needed, run
from wasm_tools import Cases

from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.targets import find_targets

TARGETS = ["cpu:x86_64-v4", "cpu:x86_64-v3", "cpu:aarch64", "cpu:armv7", "cpu:riscv64", "cpu:wasm32"]
MODELS = (
    "mobilenetv2_fp32_real_b",
    "yolox_nano",
    "ultraface_rfb_320",
    "silero_vad_op18_ifless",
    "dtln_model_1",
    "kws_dscnn_l",
    "mobilenetv2_qop_u8s8",
    "tiny_gpt2_past_fp32",
)
GIVEN = {
    "silero_vad_op18_ifless": BuildOptions(
        shapes={"input": (1, 576), "state": (2, 1, 128)}, values={"sr": np.array(16000)}
    )
}
"""What the file of a model leaves open."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command that runs a bundle, by architecture."""
    folder = tmp_path_factory.mktemp("programs")
    sources = [REPOSITORY / "examples" / "run_bundle.c", RUNTIME / "tinyinfer.c"]
    made = {}
    for machine in MACHINES:
        needed(*machine.runner[:1])
        flags = ["-O2", *(["-static"] if machine.runner else [])]
        program = compiled(folder / machine.architecture, machine.compiler, sources, *flags)
        made[machine.architecture] = [*machine.runner, str(program)]
    return made


@pytest.mark.sweep
@pytest.mark.parametrize("name", MODELS)
def test_golden_vectors(
    name: str,
    programs: dict[str, list[str]],
    shared_models: Path,
    filled_model: Callable[[str], Path],
    tmp_path: Path,
):
    stored = shared_models / f"{name}.onnx"
    model = stored if stored.is_file() else filled_model(name)
    bundle = tmp_path / f"{name}.tinf"
    build_bundle(model, find_targets(TARGETS), bundle, GIVEN.get(name, BuildOptions()))
    for architecture, command in programs.items():
        done = run(*command, bundle, "verify", timeout=600)
        assert done.returncode == 0, f"{architecture}: {done.stdout}{done.stderr}"
        print(f"{name} on {architecture}:\n{done.stdout}")
    cases = Cases(tmp_path)
    cases.add(bundle.read_bytes(), verify=True)
    (result,) = cases.run()
    assert "error" not in result and all(v["passed"] for v in result["verified"]), result
    print(f"{name} on wasm32: {result['verified']}")
