"""Makes the folder in which the ir3 compiler lives: `python -m tinyinfer.backends.qcom.mesa_tree FOLDER`.

A small Debian system of the release that carries a Mesa new enough, put together by mmdebstrap from the
mirror that the machine's own apt is set up for. Needs Debian or a relative on x86-64, root, and about 600 MB;
half a minute.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RELEASE = "forky"
PACKAGES = ("mesa-drm-shim", "mesa-opencl-icd", "ocl-icd-libopencl1", "python3-pyopencl", "python3-numpy")


def debian_mirror() -> str:
    """The address from which this machine's apt takes Debian; RuntimeError where there is none."""
    if shutil.which("apt-get") is None:
        raise RuntimeError("apt-get is missing: the tree is made from Debian packages")
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
        "Origin: Debian",
    ]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    mirrors = [line.split()[0] for line in text.splitlines() if line and not line.endswith("-security")]
    if not mirrors:
        raise RuntimeError("apt knows no Debian mirror here; run apt-get update, or make the tree on Debian")
    return mirrors[0]


def make_tree(folder: Path, mirror: str) -> None:
    """Make the tree at `folder`, which must not exist yet; RuntimeError with mmdebstrap's last lines if that
    fails.
    """
    if folder.exists():
        raise RuntimeError(f"{folder} exists already")
    if shutil.which("mmdebstrap") is None:
        raise RuntimeError("mmdebstrap is missing: apt-get install mmdebstrap")
    # a mirror may be a snapshot whose index files count as out of date
    options = ['--aptopt=Acquire::Check-Valid-Until "false"', "--arch=amd64", "--variant=apt"]
    command = ["mmdebstrap", *options, f"--include={','.join(PACKAGES)}", RELEASE, str(folder), mirror]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError("mmdebstrap failed:\n" + "\n".join(done.stderr.splitlines()[-10:]))
    # other users enter the tree through a user namespace of their own
    folder.chmod(0o755)


def main(arguments: Sequence[str]) -> int:
    """The command: 0, or 1 with one message on standard error."""
    if len(arguments) != 1:
        print("usage: python -m tinyinfer.backends.qcom.mesa_tree FOLDER", file=sys.stderr)
        return 1
    folder = Path(arguments[0])
    try:
        make_tree(folder, debian_mirror())
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"made {folder}; set TINYINFER_MESA={folder.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
