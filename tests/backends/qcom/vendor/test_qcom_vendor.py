"""The extensions of Qualcomm's driver, on another driver that pretends to have them (`fake_adreno.c`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyinfer import config
from tinyinfer.backends.opencl import platforms
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.qcom import presence
from tinyinfer.backends.qcom.device import QcomDevice

FOLDER = Path(__file__).parent
TESTS = FOLDER.parents[2]
SCENARIOS = re.findall(r"@scenario\ndef (\w+)", (FOLDER / "adreno_scenarios.py").read_text())


def without(reason: str) -> None:
    """Skips the test, and fails it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """How each scenario failed; None for those that did not."""
    folder = tmp_path_factory.mktemp("vendor")
    drivers = [path.read_text().strip() for path in Path("/etc/OpenCL/vendors").glob("pocl*.icd")]
    reason = OpenclDevice().available() or ("" if drivers else "PoCL is not listed in /etc/OpenCL/vendors")
    reason = reason or ("" if shutil.which("gcc") else "gcc is missing")
    if reason:
        without(reason)
    library = folder / "libfake_adreno.so"
    build = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC"]
    named = [FOLDER / "fake_adreno.c", "-Wl,-soname,libOpenCL_adreno.so", "-o", library]
    subprocess.run([*build, *named, "-ldl"], check=True)
    environment = config.child_environment(
        FAKE_DRIVER=drivers[0],
        FAKE_LOG=str(folder / "log"),
        OCL_ICD_VENDORS=str(library),
        TINYINFER_CACHE=str(folder / "cache"),
        PYTHONPATH=os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    )
    command = [sys.executable, str(FOLDER / "adreno_scenarios.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # recordings are given back, whatever became of them
    log = (folder / "log").read_text().split()
    assert log.count("recorded") == log.count("released") > 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SCENARIOS)
def test_on_a_driver_with_the_extensions(name: str, results: dict[str, str | None]):
    assert results[name] is None, results[name]


# ---- where there is none


@pytest.mark.parametrize(
    "libraries, path, wanted",
    [
        ([], "/none", "a package of the board's vendor); there is no /none"),
        (["/vendor/lib64/libOpenCL.so"], "/dev/null", "list it in a file /etc/OpenCL/vendors/adreno.icd"),
        (["/vendor/lib64/libOpenCL.so"], "/dev/null", "/dev/null can be opened"),
    ],
)
def test_the_reason_says_which_parts_are_missing(libraries, path, wanted, monkeypatch):
    monkeypatch.setattr(presence, "vendor_libraries", lambda: libraries)
    monkeypatch.setattr(presence, "PATH", path)
    reason = QcomDevice().available()
    assert reason is not None and wanted in reason


def test_a_device_that_may_not_be_opened_is_told_from_one_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(presence, "PATH", str(tmp_path))
    monkeypatch.setattr(presence.os, "access", lambda path, mode: False)
    assert "is here, but this user may not open it" in presence.missing_parts()


@pytest.mark.parametrize("chosen", [None, "/mine"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_library_that_no_loader_knows_of_is_named_to_it(listed, chosen, monkeypatch, tmp_path):
    library = tmp_path / "libOpenCL.so"
    library.touch()
    if listed:
        (tmp_path / "a.icd").touch()
    monkeypatch.setattr(platforms, "_VENDOR_LIBRARIES", ("/none.so", str(library)))
    monkeypatch.setattr(platforms, "_LISTED", str(tmp_path / "*.icd"))
    monkeypatch.setenv(config.OPENCL_VARIABLE, chosen or "")
    if chosen is None:
        monkeypatch.delenv(config.OPENCL_VARIABLE)
    OpenclDevice().available()
    assert os.environ.get(config.OPENCL_VARIABLE) == chosen or (None if listed else str(library))
