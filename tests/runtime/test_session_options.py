"""Options: onnxruntime's names, what they mean here, and what is refused."""

import pytest

import tinyinfer
from tinyinfer.errors import InvalidArgument
from tinyinfer.runtime.session_options import GraphOptimizationLevel, RunOptions, SessionOptions


def test_fields_have_onnxruntimes_names_and_defaults():
    onnxruntime = pytest.importorskip("onnxruntime")
    theirs, ours = onnxruntime.SessionOptions(), SessionOptions()
    for name in (
        "intra_op_num_threads", "inter_op_num_threads", "enable_profiling", "optimized_model_filepath",
        "enable_mem_pattern", "enable_mem_reuse", "enable_cpu_mem_arena", "log_severity_level",
        "log_verbosity_level", "logid", "use_deterministic_compute", "use_per_session_threads",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert int(ours.graph_optimization_level) == int(theirs.graph_optimization_level)
    assert {level.name: level.value for level in GraphOptimizationLevel} == {
        name: int(value) for name, value in onnxruntime.GraphOptimizationLevel.__members__.items()
    }


def test_misspelt_fields_are_errors():
    with pytest.raises(AttributeError):
        SessionOptions().intra_op_threads = 2  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        RunOptions().terminated = True  # type: ignore[attr-defined]


def test_levels_and_determinism_reach_the_compiler():
    options = SessionOptions()
    assert options.compile_options().fuse
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    assert not options.compile_options().fuse and options.compile_options().deterministic


def test_config_entries_are_kept():
    options, run = SessionOptions(), RunOptions()
    options.add_session_config_entry("session.x", "1")
    run.add_run_config_entry("y", "2")
    assert options.get_session_config_entry("session.x") == "1" and run.get_run_config_entry("y") == "2"
    with pytest.raises(RuntimeError, match="does not have configuration with key: z"):
        options.get_session_config_entry("z")


@pytest.mark.parametrize("size", [-1, 1.5, True])
def test_sizes_are_whole_numbers(size):
    with pytest.raises(InvalidArgument, match="size"):
        SessionOptions().add_free_dimension_override_by_name("batch", size)


def test_an_optimized_model_file_is_refused_in_words():
    options = SessionOptions(optimized_model_filepath="x.onnx")
    with pytest.raises(tinyinfer.NotImplemented, match="optimized_model_filepath"):
        tinyinfer.InferenceSession(b"", options)
