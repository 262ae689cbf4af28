"""Finding and running the compiler; what needs the Mesa tree skips where TINYINFER_MESA does not name one."""

import pytest
from adreno_kernels import accumulators, image_matmul

from tinyinfer import config
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.ir3 import ICD_FILE, KernelText, MesaTreeCompiler, find_compiler
from tinyinfer.errors import EPFail


def test_without_a_tree_there_is_a_reason(monkeypatch):
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    compiler, reason = find_compiler(find_gpu("a630"))
    assert compiler is None and config.MESA_VARIABLE in reason


def test_a_folder_that_is_no_tree_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(config.MESA_VARIABLE, str(tmp_path))
    compiler, reason = find_compiler(find_gpu("a630"))
    assert compiler is None and str(tmp_path) in reason and ICD_FILE in reason


def test_a_tree_without_the_driver_package_is_refused(tmp_path):
    (tmp_path / ICD_FILE).parent.mkdir(parents=True)
    (tmp_path / ICD_FILE).touch()
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: python3\nVersion: 3.14\n\n")
    compiler, reason = find_compiler(find_gpu("a630"), tmp_path)
    assert compiler is None and "lacks the package mesa-opencl-icd" in reason


def test_a_gpu_that_the_compiler_does_not_know_is_named(tmp_path):
    compiler, reason = find_compiler(find_gpu("a640"), tmp_path)
    assert compiler is None and "a640" in reason


def test_a_tree_that_cannot_run_is_an_error(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text("Package: mesa-opencl-icd\nVersion: 1\n")
    compiler = MesaTreeCompiler(find_gpu("a630"), tmp_path, KernelCache(tmp_path / "cache"))
    with pytest.raises(EPFail, match="cannot run its compiler for a630"):
        compiler.compile([KernelText("k", "__kernel void k() {}")])


def test_many_kernels_come_back_in_order(ir3):
    texts = [KernelText(f"k{n}", accumulators(n, 64)) for n in (9, 1, 5)]
    kernels = ir3("a630").compile(texts)
    assert [kernel.name for kernel in kernels] == ["k9", "k1", "k5"]
    nine, one, five = (kernel.statistics for kernel in kernels)
    assert nine.instructions > five.instructions > one.instructions
    assert all(len(kernel.loops) == kernel.statistics.loops == 1 for kernel in kernels)


@pytest.mark.parametrize(
    "source, message",
    [
        ("__kernel void k(__global int *a) { b[0] = 1; }", "undeclared identifier 'b'"),
        ("__kernel void a() {} __kernel void b() {}", "one kernel a source is needed, this has 2"),
    ],
)
def test_a_kernel_that_does_not_compile_is_named_with_the_log(ir3, source, message):
    compiler = ir3("a630")
    with pytest.raises(EPFail, match=rf"(?s)kernel conv_1 does not compile for a630.*{message}"):
        compiler.compile([KernelText("conv_1", source)])
    assert compiler.compile([KernelText("next", accumulators(2, 64))])[0].statistics.instructions > 0


def test_options_reach_the_compiler(ir3):
    source = "__kernel void k(__global float *a) { for (int i = 0; i < N; i++) a[i * 64] *= a[i]; }"
    compiler = ir3("a630")
    two, eight = compiler.compile([KernelText("k", source, f"-DN={n}") for n in (2, 8)])
    assert eight.statistics.memory > two.statistics.memory
    with pytest.raises(EPFail, match="'N'"):
        compiler.compile([KernelText("k", source)])


def test_results_are_cached_by_source_gpu_and_version(ir3, tmp_path):
    tree = config.mesa_tree()
    if tree is None:
        pytest.skip(f"{config.MESA_VARIABLE} does not name a Mesa tree")
    cache = KernelCache(tmp_path)
    with MesaTreeCompiler(find_gpu("a630"), tree, cache) as compiler:
        first = compiler.compile([KernelText("one", accumulators(3, 64))])[0]
    with MesaTreeCompiler(find_gpu("a630"), tree, cache) as compiler:
        again = compiler.compile([KernelText("two", accumulators(3, 64))])[0]
    assert cache.info().entries == 1
    assert (again.name, again.statistics) == ("two", first.statistics)
    with MesaTreeCompiler(find_gpu("a660"), tree, cache) as compiler:
        other = compiler.compile([KernelText("one", accumulators(3, 64))])[0]
    assert cache.info().entries == 2 and other.gpu == "a660"


def test_spills_are_seen(ir3):
    source = accumulators(64, 64)
    kernel = ir3("a630").compile([KernelText("wide", source)])[0]
    assert kernel.statistics.spills and kernel.private_bytes > 0


def test_reads_without_a_sampler_stay_in_half(ir3):
    """A sampler makes reads return floats that are converted: more instructions, registers, fewer waves."""
    with_sampler, without = (
        kernel.statistics
        for kernel in ir3("a630").compile([KernelText(str(s), image_matmul(s)) for s in (True, False)])
    )
    assert with_sampler.instructions == pytest.approx(229, rel=0.05)
    assert without.instructions == pytest.approx(178, rel=0.05)
    assert (with_sampler.full_registers, with_sampler.waves) == (12, 8)
    assert (without.full_registers, without.waves) == (8, 12)
    assert with_sampler.conversions >= 32 and without.conversions == 0
