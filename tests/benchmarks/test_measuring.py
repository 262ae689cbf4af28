"""Workers, and the three programs from end to end on the digit model."""

import json
import time

import numpy as np
import pytest

from benchmarks import compare, engines, memory, start
from benchmarks.catalogue import REPOSITORY
from benchmarks.worker import EngineError, Worker, peak_resident_bytes

DIGITS = REPOSITORY / "models" / "digits" / "digits.onnx"
ENGINES = ["tinyinfer", "onnxruntime"]


@pytest.fixture
def feeds(tmp_path):
    path = tmp_path / "feeds.npz"
    np.savez(path, image=np.full((1, 1, 28, 28), 0.5, np.float32))
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_worker_answers(engine, feeds, tmp_path):
    with Worker(engine, tmp_path / "cache") as worker:
        before = worker.peak_bytes()
        answer = worker.load(DIGITS, 1, feeds)
        assert min(answer.values()) > 0 and set(answer) == {"import_s", "create_s", "first_s"}
        assert worker.peak_bytes() > before > 1_000_000
        assert worker.ask("outputs", path=str(tmp_path / "out.npz")) == {"count": 1}
        assert np.load(tmp_path / "out.npz")["arr_0"].shape == (1, 10)
        worker.pause()
        worker.resume()
        timed = worker.ask("time", seconds=0.05)
        assert 0 < timed["min_s"] <= timed["median_s"] < 0.05 and timed["runs"] >= 5
    assert worker.process.returncode == 0


def test_engine_error_comes_back_in_its_own_words(feeds, tmp_path):
    with Worker("onnxruntime", tmp_path) as worker:
        with pytest.raises(EngineError, match="onnxruntime: load: NoSuchFile"):
            worker.load(tmp_path / "absent.onnx", 1, feeds)
        with pytest.raises(EngineError, match="no model is loaded"):
            worker.ask("time", seconds=0.1)
        assert worker.load(DIGITS, 1, feeds)


def test_dead_and_silent_workers_are_errors(feeds, tmp_path):
    with Worker("onnxruntime", tmp_path) as worker:
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(EngineError, match="worker ended with status"):
            worker.ask("memory")
    with Worker("onnxruntime", tmp_path, limit=1.0) as worker:
        worker.load(DIGITS, 1, feeds)
        with pytest.raises(EngineError, match="no answer within 1 s"):
            worker.ask("time", seconds=30)


def test_peak_resident_bytes_grows_with_use():
    before = peak_resident_bytes()
    held = np.ones(8_000_000 + before // 8)
    assert peak_resident_bytes() >= before + 60_000_000 and held[0] == 1


def test_tinyinfer_worker_keeps_its_kernels_in_the_cache_it_was_given(feeds, tmp_path):
    cache = tmp_path / "cache"
    with Worker("tinyinfer", cache) as worker:
        worker.load(DIGITS, 1, feeds)
    assert any(cache.rglob("*"))


def test_compare(tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = [str(DIGITS), "--threads", "1", "2", "--rounds", "2", "--seconds", "0.05", "--json", str(out)]
    assert compare.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "geometric mean of 1 of 1 models" in printed and "ratio onnxruntime" in printed
    rows = json.loads(out.read_text())["rows"]
    assert [row["threads"] for row in rows] == [1, 2]
    for row in rows:
        ours, theirs = row["figures"]
        assert len(ours["rounds_s"]) == 2 and ours["error"] < 1e-5 and theirs["error"] == 0
        assert ours["peak_bytes"] > 0 and ours["cold"]["create_s"] > 0


def test_compare_reports_an_engine_that_fails_and_still_measures_the_other(tmp_path, capsys):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(DIGITS.read_bytes().replace(b"MaxPool", b"MaxPoo1"))
    assert compare.main([str(broken), "--threads", "1", "--rounds", "1", "--seconds", "0.05"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("failed") >= 2 and "MaxPoo1" in printed and "of 0 of 1 models" in printed


def test_ratio_pairs_the_rounds():
    first = {"rounds_s": [1.0, 2.0, 1.0]}
    other = {"rounds_s": [2.0, 4.0, 3.0]}
    assert compare.ratio(first, other) == (2.0, 0.5)


def test_wrong_results_do_not_count():
    good = [{"error": 1e-6}, {"error": 0.0}]
    assert compare.counts(good, 0.01)
    assert not compare.counts([{"error": 0.5}, {"error": 0.0}], 0.01)
    assert not compare.counts([{"failure": "no"}, {"error": 0.0}], 0.01)


@pytest.mark.parametrize("program, word", [(start, "cached: create"), (memory, "cached MB")])
def test_start_and_memory(program, word, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = [str(DIGITS), "--threads", "1", "--json", str(out)]
    assert program.main(arguments + (["--repeats", "1"] if program is start else [])) == 0
    assert word in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["engine"] for row in rows] == ENGINES and all("cold" in row for row in rows)


def test_unknown_model_ends_the_program_before_anything_is_measured(tmp_path, capsys):
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        compare.main([str(DIGITS), "nosuch", "--models", str(tmp_path)])
    assert ended.value.code == 2 and "index.json is missing" in capsys.readouterr().err
    assert time.monotonic() - begun < 5


def test_version_of_a_package_that_is_absent():
    assert engines.version_of("no_such_engine") == "not installed"
    assert engines.version_of("tinyinfer")[0].isdigit()
