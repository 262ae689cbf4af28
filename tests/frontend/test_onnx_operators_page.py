"""docs/operators.md says what the op table says."""

from pathlib import Path

import onnx
import pytest

from tinyinfer.frontend.onnx.op_table import OP_TABLE, find_op
from tinyinfer.frontend.onnx.operators_page import page, release
from tinyinfer.frontend.onnx.schema_functions import has_function

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    if release() not in text:
        pytest.skip(f"the page was made with another release than {release()}")
    same = page() == text
    assert same, "python -m tinyinfer.frontend.onnx.operators_page > docs/operators.md"


def test_every_operator_of_onnx_can_run():
    """All domains and versions that the onnx package knows, but those that ONNX has withdrawn."""
    missing = [
        (s.domain, s.name, s.since_version)
        for s in onnx.defs.get_all_schemas_with_history()
        if not s.deprecated
        and find_op(s.domain, s.name, s.since_version) is None
        and not has_function(s.domain or "ai.onnx", s.name, s.since_version)
    ]
    assert not missing


def test_how_operators_run():
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| ")]
    ways = {row[0][2:]: row[3] for row in rows if len(row) == 5}
    assert ways["Conv"] == ways["Softmax"] == "kernel"
    assert ways["NonZero"] == ways["NonMaxSuppression"] == ways["ZipMap"] == "host"
    assert "loop" in ways["LSTM"] and "host" in ways["Loop"] and "structure" in ways["SequenceAt"]
    assert len(ways) >= len({name for domain, name in OP_TABLE if not domain.startswith("tinyinfer.")}) - 20
