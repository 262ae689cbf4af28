"""SessionOptions and RunOptions with onnxruntime's names.

Fields that say how onnxruntime works inside, and that have no counterpart here, are accepted and change
nothing; each class says which ones. Results never depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from os import PathLike, fspath
from typing import TYPE_CHECKING

from tinyinfer.config import CompileOptions
from tinyinfer.errors import InvalidArgument, NotImplemented

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.custom import CustomOps


class GraphOptimizationLevel(IntEnum):
    """How much a graph is rewritten: ORT_DISABLE_ALL makes one kernel of each op, all other levels fuse."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Accepted and without effect: the plan is one static sequence, each kernel spread over all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


@dataclass(slots=True)
class SessionOptions:
    """What a session is built with.

    Effective: `intra_op_num_threads` (0 = all cores), `graph_optimization_level`,
    `use_deterministic_compute`, `enable_profiling` with `profile_file_prefix`, `log_severity_level` (-1 = the
    process's default) with `logid`, the free-dimension overrides, and the input shapes.
    `optimized_model_filepath` is refused: compiled models are not ONNX files.

    Accepted, no effect: `inter_op_num_threads`, `execution_mode`, `enable_mem_pattern`, `enable_mem_reuse`,
    `enable_cpu_mem_arena` (the arena is planned at compile time), `use_per_session_threads`,
    `log_verbosity_level`, and config entries, which are kept and given back.
    """

    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    use_deterministic_compute: bool = False
    enable_profiling: bool = False
    profile_file_prefix: str = "tinyinfer_profile_"
    optimized_model_filepath: str = ""
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_cpu_mem_arena: bool = True
    use_per_session_threads: bool = True
    free_dimensions_by_name: dict[str, int] = field(default_factory=dict)
    free_dimensions_by_denotation: dict[str, int] = field(default_factory=dict)
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    config_entries: dict[str, str] = field(default_factory=dict)
    custom_ops: list[CustomOps] = field(default_factory=list)

    def register_custom_ops(self, registry: CustomOps) -> None:
        """Operators for the sessions with these options, besides those of the process. InvalidArgument where
        two registries have the same operator. Not in onnxruntime.
        """
        from tinyinfer.frontend.onnx.custom import CustomOps

        if not isinstance(registry, CustomOps):
            raise InvalidArgument(f"a tinyinfer.CustomOps is expected, not a {type(registry).__name__}")
        if any(registry is other for other in self.custom_ops):
            return
        for entry in registry.entries():
            if any(other.overlaps(entry) for other in self.custom_ops):
                raise InvalidArgument(f"custom operator {entry.domain}.{entry.name}: two registries have it")
        self.custom_ops.append(registry)

    def register_custom_ops_library(self, library: CustomOps | str | PathLike[str]) -> None:
        """As `register_custom_ops`. onnxruntime's shared libraries cannot be used: NotImplemented."""
        if isinstance(library, (str, PathLike)):
            raise NotImplemented(  # noqa: F901 - the exception of tinyinfer.errors
                f"{fspath(library)}: libraries of custom operators are made for onnxruntime's own "
                "interface; register functions instead (tinyinfer.CustomOps)"
            )
        self.register_custom_ops(library)

    def add_input_shape(self, name: str, shape: Sequence[int]) -> None:
        """Compile at construction with this shape of input `name`; other shapes still work. Not in
        onnxruntime.
        """
        self.input_shapes[name] = tuple(_dimension(name, size) for size in shape)

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        """Give the symbolic dimension `name` the size `value`."""
        self.free_dimensions_by_name[name] = _dimension(name, value)

    def add_free_dimension_override_by_denotation(self, denotation: str, value: int) -> None:
        """Give every dimension that the model denotes so (for example DATA_BATCH) the size `value`."""
        self.free_dimensions_by_denotation[denotation] = _dimension(denotation, value)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Keep a configuration entry; none changes anything here."""
        self.config_entries[str(key)] = str(value)

    def get_session_config_entry(self, key: str) -> str:
        """The entry `key`; RuntimeError where it was never added, as in onnxruntime."""
        return _entry(self.config_entries, key, "SessionOptions")

    def compile_options(self) -> CompileOptions:
        """The part of the options that decides what kernels compute."""
        return CompileOptions(
            fuse=self.graph_optimization_level != GraphOptimizationLevel.ORT_DISABLE_ALL,
            deterministic=self.use_deterministic_compute,
        )


@dataclass(slots=True)
class RunOptions:
    """Options of one run. Effective: `terminate` (the run raises Fail instead of starting).

    Accepted, no effect: `log_severity_level`, `log_verbosity_level`, `logid`, config entries, and
    `only_execute_path_to_fetches` (every kernel of the plan runs; outputs not asked for are dropped).
    """

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    terminate: bool = False
    only_execute_path_to_fetches: bool = False
    config_entries: dict[str, str] = field(default_factory=dict)

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Keep a configuration entry; none changes anything here."""
        self.config_entries[str(key)] = str(value)

    def get_run_config_entry(self, key: str) -> str:
        """The entry `key`; RuntimeError where it was never added, as in onnxruntime."""
        return _entry(self.config_entries, key, "RunOptions")


def _dimension(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 0:
        raise InvalidArgument(f"dimension of {name!r}: a size is a whole number, 0 or more, not {value!r}")
    return int(value)


def _entry(entries: dict[str, str], key: str, owner: str) -> str:
    if key not in entries:
        raise RuntimeError(f"{owner} does not have configuration with key: {key}")
    return entries[key]
