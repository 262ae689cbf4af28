"""WebAssembly in tests: modules of kernels, and bundles run by the JavaScript loader under Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyinfer
from tinyinfer.backends.cpu.compile import compile_object
from tinyinfer.backends.cpu.target import make_target
from tinyinfer.backends.cpu.wasm.link import RUN_TEXT, link_kernels

HERE = Path(__file__).parent
LOADER = Path(tinyinfer.__file__).parent / "bundle" / "js" / "tinyinfer.mjs"
WASM32 = make_target("wasm32-unknown-unknown", "generic", "+simd128,+bulk-memory,+sign-ext,+nontrapping-fptoint")


def needed(program: str) -> str:
    """The path of a program; where the machine lacks it, the test is skipped, or fails in CI."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


def no_support(name: str) -> bytes:
    raise AssertionError(f"generated code calls {name}")


def module_of(texts: Sequence[str]) -> bytes:
    """The module of kernels given as LLVM IR."""
    objects = [compile_object(text, WASM32) for text in texts]
    return link_kernels(objects, compile_object(RUN_TEXT, WASM32), no_support)


class Cases:
    """Bundles to run in one Node process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cases: list[dict[str, Any]] = []

    def add(self, bundle: bytes, feeds: Mapping[str, np.ndarray] | None = None, **more: Any) -> None:
        """A bundle, what to feed it, and other fields of a case of check_bundles.mjs."""
        case: dict[str, Any] = {"bundle": self._file("bundle", bundle), **more}
        if feeds is not None:
            case["feeds"] = {name: self._file(f"feed{i}", a.tobytes()) for i, (name, a) in enumerate(feeds.items())}
        self.cases.append(case)

    def _file(self, kind: str, data: bytes) -> str:
        path = self.folder / f"{len(self.cases)}.{kind}"
        path.write_bytes(data)
        return str(path)

    def run(self) -> list[dict[str, Any]]:
        """The results, in order of the cases."""
        listed = self.folder / "cases.json"
        listed.write_text(json.dumps(self.cases), encoding="utf-8")
        command = [needed("node"), str(HERE / "check_bundles_node.mjs"), str(LOADER), str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert len(results) == len(self.cases)
        return results
