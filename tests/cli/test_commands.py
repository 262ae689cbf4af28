"""The commands besides `run`: what they print, their JSON, and their exit codes."""

import json

import onnx
import pytest
from click.testing import CliRunner
from small_models import affine, sum_of_two

from cli.main import main


@pytest.fixture
def model(tmp_path):
    onnx.save(affine(), tmp_path / "affine.onnx")
    return str(tmp_path / "affine.onnx")


def call(*arguments, code=0, **options):
    result = CliRunner().invoke(main, [str(a) for a in arguments], **options)
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def call_json(*arguments, code=0):
    return json.loads(call(*arguments, "--json", code=code).stdout)


@pytest.mark.parametrize("name", ["run", "inspect", "explain", "compare", "bench", "devices", "cache"])
def test_help_and_the_list_of_commands(name):
    assert f"\n  {name} " in call("--help").stdout
    assert "Usage: " in call(name, "--help").stdout


@pytest.mark.parametrize("command", ["run", "bench", "compare"])
def test_halves_are_refused_where_no_device_stores_them(command, model):
    for devices in ([], ["--device", "CPU"], ["--device", "opencl"], ["--device", "qcom", "--device", "CPU"]):
        text = call(command, model, "--precision", "fp16", *devices, code=2).stderr
        assert text.count("\n") == 1 and "--precision fp16: " in text and "QCOM" in text
    assert "y" in call("run", model, "--precision", "fp32").stdout


def test_version():
    import tinyinfer

    assert call("--version").stdout == f"tinyinfer {tinyinfer.__version__}\n"


class TestInspect:
    def test_for_people(self, model):
        text = call("inspect", model).stdout
        for word in (
            "x",
            "tensor(float)",
            "batchx3",
            "batchx2",
            "ai.onnx 17",
            "Gemm 1",
            "Neg 1",
            "8 numbers",
        ):
            assert word in text

    def test_for_programs(self, model):
        found = call_json("inspect", model)
        assert found["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["batch", 3]}]
        assert found["operators"] == {"Gemm": 1, "Neg": 1} and found["opsets"] == {"ai.onnx": 17}
        assert (found["parameters"], found["parameter_bytes"]) == (8, 32)
        assert found["producer"] == "tests" and found["version"] == 7 and found["blockers"] == []

    def test_weights_in_the_file_and_beside_it_are_counted(self, shared_models, model_index):
        for name in ("mnist_external", "mobilenetv2_fp16", "if_branch"):
            found = call_json("inspect", shared_models / f"{name}.onnx")
            operators = {op: n for op, n in found["operators"].items() if op in model_index[name]["ops"]}
            assert set(operators) == set(model_index[name]["ops"])
            assert found["parameter_bytes"] > 0


class TestExplain:
    def test_stages(self, model):
        listed = call_json("explain", model, "--list")
        assert listed[:2] == ["graph", "optimized"] and len(listed) > 2
        whole = call_json("explain", model)
        assert list(whole) == listed and all(whole.values())
        one = call("explain", model, "--stage", "graph").stdout
        assert one.startswith("==== graph\n") and "INPUT float32[1, 3]" in one and "optimized" not in one

    def test_shapes(self, model):
        assert "INPUT float32[7, 3]" in call("explain", model, "--shape", "x:7x3").stdout

    def test_kernels_by_onnx_name(self, model):
        found = call_json("explain", model, "--kernel", "gemm*")
        assert "gemm" in found["graph"] and found.get("kernels", "gemm")

    def test_unknown_stages_and_kernels(self, model):
        assert "there are graph" in call("explain", model, "--stage", "nonsense", code=2).stderr
        assert "nothing matches" in call("explain", model, "--kernel", "nonsense", code=2).stderr


class TestCompare:
    def test_agreement(self, model):
        found = call_json("compare", model)
        assert found["passed"] and {row["output"] for row in found["results"]} == {"y", "z"}
        assert {row["against"] for row in found["results"]} >= {"oracle"}
        assert "ok" in call("compare", model).stdout

    def test_disagreement_is_exit_code_1(self, model, monkeypatch):
        from tinyinfer.backends.reference.device import ReferenceExecutable

        right = ReferenceExecutable.run
        monkeypatch.setattr(
            ReferenceExecutable, "run", lambda self, feeds: [x + 1 for x in right(self, feeds)]
        )
        found = call_json("compare", model, "--against", "oracle", code=1)
        assert not found["passed"] and not any(row["passed"] for row in found["results"])
        assert "DIFFERS" in call("compare", model, "--against", "oracle", code=1).stdout
        call("compare", model, "--against", "oracle", "--tolerance", 1e9)

    def test_onnxruntime_where_it_is_installed(self, model):
        pytest.importorskip("onnxruntime")
        found = call_json("compare", model, "--against", "onnxruntime")
        assert found["passed"] and {row["against"] for row in found["results"]} == {"onnxruntime"}

    def test_without_onnxruntime(self, model, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
        assert "not installed" in call_json("compare", model)["notes"][0]
        assert "not installed" in call("compare", model, "--against", "onnxruntime", code=2).stderr


class TestBench:
    def test_figures(self, model):
        found = call_json("bench", model, "--runs", 20, "--warmup", 2)
        seconds = found["seconds"]
        assert found["runs"] == 20 and found["creation_seconds"] > 0 and found["first_run_seconds"] > 0
        assert seconds["min"] <= seconds["median"] <= seconds["p90"] <= seconds["p95"] <= seconds["p99"]
        assert seconds["p99"] <= seconds["max"] and found["peak_bytes"] > 0
        assert found["runs_per_second"] == pytest.approx(1 / seconds["mean"])

    def test_percentiles_can_be_chosen(self, model):
        found = call_json("bench", model, "--runs", 5, "--percentile", 50, "--percentile", 99.9)
        assert {"p50", "p99.9"} <= set(found["seconds"]) and "p90" not in found["seconds"]

    def test_for_people(self, model):
        text = call("bench", model, "--runs", 5).stdout
        for word in ("session creation", "first run", "median", "p99", "runs/s", "at peak"):
            assert word in text

    @pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
    def test_profile(self, model, device):
        found = call_json("bench", model, "--runs", 3, "--profile", "--device", device, "--threads", 1)
        profile = found["profile"]
        assert sum(row["share"] for row in profile["kernels"]) == pytest.approx(1)
        assert any("gemm" in row["onnx"] for row in profile["kernels"])
        assert profile["peaks"]["gflops"] > 0
        text = call("bench", model, "--runs", 3, "--profile", "--device", device, "--threads", 1).stdout
        assert "GFLOP/s" in text and "gemm" in text

    def test_baselines(self, model, tmp_path):
        old = call_json("bench", model, "--runs", 5)
        baseline = tmp_path / "old.json"
        for factor, limit, code in ((1000, "5%", 0), (1e-6, "5%", 1), (1e-6, "0.05", 1), (1e-6, None, 0)):
            changed = {**old, "seconds": {"median": old["seconds"]["median"] * factor}}
            baseline.write_text(json.dumps(changed))
            flags = ["--fail-over", limit] if limit else []
            found = call_json("bench", model, "--runs", 5, "--compare", baseline, *flags, code=code)
            assert (found["change"] > 0) is (factor < 1)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": {}}'])
    def test_bad_baselines(self, model, tmp_path, content):
        (tmp_path / "old.json").write_text(content)
        assert "bench --json" in call("bench", model, "--compare", tmp_path / "old.json", code=2).stderr

    def test_bad_limits(self, model, tmp_path):
        assert "needs --compare" in call("bench", model, "--fail-over", "5%", code=2).stderr
        flags = ("--compare", tmp_path / "x.json", "--fail-over", "a lot")
        assert "a lot" in call("bench", model, *flags, code=2).stderr


def test_devices():
    found = {entry["name"]: entry for entry in call_json("devices")}
    assert found["CPU"]["available"] and found["CPU"]["default"] and found["REFERENCE"]["available"]
    assert "CPU (default)" in call("devices").stdout
    opencl = found["OPENCL"]
    assert bool(opencl["found"]) == opencl["available"] == (opencl["reason"] is None)
    assert all(entry.startswith(f"opencl:{i} ") for i, entry in enumerate(opencl["found"]))


def test_devices_without_an_adreno_say_what_is_missing():
    qcom = next(entry for entry in call_json("devices") if entry["name"] == "QCOM")
    if qcom["available"]:
        assert all(set(found) == {"name", "present", "use"} for found in qcom["extensions"])
        return
    assert qcom["extensions"] == [] and "/dev/kgsl-3d0" in qcom["reason"]
    assert "libOpenCL" in qcom["reason"] or "here, but no OpenCL loader takes it" in qcom["reason"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["priority=low"], "no device that was named with --device has options; QCOM has"),
        (["priority=low", "--device", "CPU"], "no device that was named"),
        (["priority", "--device", "QCOM"], "'priority': expected NAME=VALUE"),
        (["priority=low", "--device", "qcom:a1"], "unknown Adreno GPU 'A1'"),
    ],
)
def test_options_of_devices(model, words, message):
    assert message in call("run", model, "--device-option", *words, code=2).stderr


def test_the_cache_can_be_shown_and_cleared(model, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYINFER_CACHE", str(tmp_path / "cache"))
    assert call_json("cache", "info")["entries"] == 0
    call("run", model)
    found = call_json("cache", "info")
    assert found["directory"] == str(tmp_path / "cache") and found["entries"] > 0 and found["bytes"] > 0
    assert str(found["entries"]) in call("cache", "info").stdout
    assert call_json("cache", "clear")["removed"]["entries"] == found["entries"]
    assert call_json("cache", "info")["entries"] == 0
    assert "removed 0" in call("cache", "clear").stdout


@pytest.mark.parametrize("level, shown, hidden", [
    ("0", [], ["compiled in"]),
    ("1", ["compiled in"], ["==== "]),
    ("2", ["==== kernels"], ["==== graph", "==== code"]),
    ("3", ["==== graph", "==== kernels"], ["==== code"]),
    ("4", ["==== graph", "==== code"], []),
])  # fmt: skip
def test_debug_levels_go_to_standard_error(model, monkeypatch, level, shown, hidden):
    monkeypatch.setenv("DEBUG", level)
    result = call("run", model, "--json")
    json.loads(result.stdout)
    assert all(word in result.stderr for word in shown)
    assert not any(word in result.stderr for word in hidden)


def test_inputs_that_no_file_names_are_random_in_bench_and_compare(tmp_path):
    onnx.save(sum_of_two("n", "m"), tmp_path / "sum.onnx")
    flags = ("--input", "a=random:0:1", "--shape", "a:2x3")
    assert call_json("bench", tmp_path / "sum.onnx", "--runs", 3, *flags)["inputs"] == {
        "a": [2, 3],
        "b": [2, 3],
    }
    assert call_json("compare", tmp_path / "sum.onnx", *flags)["passed"]
