"""What this folder's tests borrow from those of single backends."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "kernels"), *(str(TESTS / "backends" / x) for x in ("clike", "opencl", "qcom"))]
