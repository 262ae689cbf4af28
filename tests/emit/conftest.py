"""C programs are made and called here as in the tests of the printer and of the C runtime."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "backends" / "clike"), str(TESTS / "bundle")]
