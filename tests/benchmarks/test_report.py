"""Tables, means and agreement of outputs."""

import json
import math

import numpy as np
import pytest

from benchmarks import report


def test_table_aligns_its_columns():
    assert report.table(["name", "ms"], [["a", "1.5"], ["longer", "20"]]).splitlines() == [
        "name     ms",
        "------  ---",
        "a       1.5",
        "longer   20",
    ]


def test_geometric_mean():
    assert report.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(report.geometric_mean([]))


def test_disagreement_is_relative_to_the_range():
    reference = [np.array([0.0, 10.0]), np.array([3, 3])]
    assert report.disagreement([np.array([0.5, 10.0]), np.array([3, 3])], reference) == pytest.approx(0.05)
    assert report.disagreement([np.array([0.0, 10.0]), np.array([3, 6])], reference) == pytest.approx(1.0)
    assert report.disagreement([np.zeros((0, 2))], [np.zeros((0, 2))]) == 0


@pytest.mark.parametrize(
    "output, reference",
    [
        ([np.zeros(2)], [np.zeros(3)]),
        ([np.zeros(2)], [np.zeros(2), np.zeros(2)]),
        ([np.array([np.nan, 1])], [np.array([0.0, 1])]),
        ([np.array([0.0, 1])], [np.array([np.nan, 1])]),
        ([np.array([-np.inf, 1])], [np.array([np.inf, 1])]),
    ],
)
def test_disagreement_in_kind_is_infinite(output, reference):
    assert report.disagreement(output, reference) == math.inf


def test_equal_nans_and_infinities_agree():
    value = np.array([np.nan, np.inf, 1.0, 2.0])
    assert report.disagreement([value], [value.copy()]) == 0
    assert report.disagreement([value[:2]], [value[:2].copy()]) == 0


def test_machine_names_what_was_measured(tmp_path):
    described = report.machine(["onnxruntime"])
    assert described["cores"] >= 1 and described["engines"]["onnxruntime"][0].isdigit()
    assert "onnxruntime" in report.heading(described)
    report.write_json(tmp_path / "rows.json", described, [{"model": "a"}])
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == [{"model": "a"}]
