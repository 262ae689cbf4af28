"""WebAssembly in tests: modules of kernels, and bundles run by the JavaScript loader under Node."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import run_in_browser

import tinyinfer
from tinyinfer.backends.cpu.compile import compile_image, link_sources
from tinyinfer.backends.cpu.target import named_target
from tinyinfer.bundle.container import Section, write_bundle
from tinyinfer.bundle.plan_section import PlanSection, write_plan
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.runtime.plan import KernelSource, Plan

SCRIPT = Path(__file__).parent / "bundle" / "check_bundles_node.mjs"
LOADER = Path(tinyinfer.__file__).parent / "bundle" / "js" / "tinyinfer.mjs"
BATCH = 40
"""Bundles that one process opens: each keeps 10 GB of address space until it is collected, and Node 20 may
wait for that for ever where it runs out of it."""
WASM32 = named_target("wasm32")


def needed(program: str) -> str:
    """The path of a program; where the machine lacks it, the test is skipped, or fails in CI."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


def module_of(texts: Sequence[str]) -> bytes:
    """The module of kernels given as LLVM IR."""
    sources = [KernelSource(text, f"kernel{i}", partial(str, text)) for i, text in enumerate(texts)]
    return link_sources({source.key: source for source in sources}, WASM32).code


def bundle_of(plan: Plan) -> bytes:
    """A bundle of a plan for wasm32, with nothing in it that the plan does not need."""
    image = compile_image(plan, WASM32)
    store = WeightStore()
    tensors = [store.add(parameter) for parameter in plan.parameters]
    section = PlanSection("wasm32", 4, WASM32.needs.features, plan, tensors, image.entries)
    return write_bundle(
        [
            Section("MANI", b"{}"),
            Section("PLAN", write_plan(section), 1, "wasm32"),
            Section("CODE", image.code, 1, "wasm32"),
            Section("WIDX", store.index()),
            Section("WGHT", store.content()),
        ]
    )


class Cases:
    """Bundles to run under Node."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cases: list[dict[str, Any]] = []

    def add(self, bundle: bytes, feeds: Mapping[str, np.ndarray] | None = None, **more: Any) -> None:
        """A bundle, what to feed it, and other fields of a case of check_bundles.mjs."""
        case: dict[str, Any] = {"bundle": self._file("bundle", bundle), **more}
        if feeds is not None:
            files = [self._file(f"feed{i}", array.tobytes()) for i, array in enumerate(feeds.values())]
            case["feeds"] = dict(zip(feeds, files))
        self.cases.append(case)

    def _file(self, kind: str, data: bytes) -> str:
        path = self.folder / f"{len(self.cases)}.{kind}"
        path.write_bytes(data)
        return str(path)

    def run(self) -> list[dict[str, Any]]:
        """The results, in order of the cases."""
        results = []
        for first in range(0, len(self.cases), BATCH):
            listed = self.folder / "cases.json"
            listed.write_text(json.dumps(self.cases[first : first + BATCH]), encoding="utf-8")
            command = [needed("node"), str(SCRIPT), str(LOADER), str(listed)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            results += json.loads(done.stdout)
        assert len(results) == len(self.cases)
        return results

    def run_in_browser(self) -> list[dict[str, Any]]:
        """The same in a page of a browser."""
        listed = [
            {**case, "bundle": _served(case["bundle"]), "feeds": _served_all(case.get("feeds"))}
            for case in self.cases
        ]
        script = f"""
            import * as loader from '/loader/tinyinfer.mjs';
            import {{ checkBundles }} from '/scripts/check_bundles.mjs';
            const read = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
            export const main = () => checkBundles(loader, {json.dumps(listed)}, read);
        """
        (self.folder / "main.mjs").write_text(script, encoding="utf-8")
        folders = {"loader": LOADER.parent, "scripts": SCRIPT.parent, "cases": self.folder}
        return run_in_browser(folders, "cases/main.mjs", self.folder / "profile")


def _served(path: str) -> str:
    return f"/cases/{Path(path).name}"


def _served_all(feeds: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if feeds is None else {name: _served(path) for name, path in feeds.items()}


def outputs_of(result: dict[str, Any], wanted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a case, as arrays like the ones that are wanted."""
    assert "error" not in result, result
    assert result["outputs"].keys() == wanted.keys()
    found = {}
    for name, like in wanted.items():
        data = base64.b64decode(result["outputs"][name])
        found[name] = np.frombuffer(data, like.dtype).reshape(like.shape)
    return found
