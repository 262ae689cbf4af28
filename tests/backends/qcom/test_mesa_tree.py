"""The command that makes the Mesa tree: what it refuses, and, in the sweep, the tree itself."""

import os
import shutil

import pytest

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom import mesa_tree
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.ir3 import KernelText, MesaTreeCompiler


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(RuntimeError, match="exists already"):
        mesa_tree.make_tree(tmp_path, "nowhere")
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize("program", ["mmdebstrap", "apt-get"])
def test_a_missing_program_is_named(tmp_path, monkeypatch, capsys, program):
    which = {"mmdebstrap": "/usr/bin/mmdebstrap", "apt-get": "/usr/bin/apt-get"}
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else which[name])
    monkeypatch.setattr(mesa_tree, "debian_mirror", mesa_tree.debian_mirror if program == "apt-get" else str)
    assert mesa_tree.main([str(tmp_path / "tree")]) == 1
    assert f"{program} is missing" in capsys.readouterr().err


def test_a_mirror_without_packages_leaves_nothing_behind(tmp_path):
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is missing")
    with pytest.raises(RuntimeError, match="mmdebstrap failed"):
        mesa_tree.make_tree(tmp_path / "tree", f"file://{tmp_path}")
    assert not (tmp_path / "tree").exists()


def test_usage(capsys):
    assert mesa_tree.main([]) == 1
    assert "usage:" in capsys.readouterr().err


@pytest.mark.sweep
def test_a_new_tree_compiles(tmp_path):
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        pytest.skip("making a tree needs mmdebstrap and root")
    folder = tmp_path / "tree"
    assert mesa_tree.main([str(folder)]) == 0
    with MesaTreeCompiler(find_gpu("a740"), folder, KernelCache(tmp_path / "cache")) as compiler:
        kernel = compiler.compile([KernelText("k", "__kernel void k(__global int *a) { a[0] = 1; }")])[0]
    assert compiler.version.startswith("mesa ")
    assert kernel.statistics.waves == 16
    shutil.rmtree(folder)
