"""Every op, every dtype, odd shapes and random graphs on every device, against the oracle."""

from __future__ import annotations

import pytest
from compiled import graph_of
from device_cases import PROGRAMS, Cases, computed, defined, joined, of_dtype
from device_graphs import IMAGE_PROGRAMS, loops
from device_suite import SUITE, Qcom, SuiteDevice, usable
from opencl_runs import quick_builds

from tinyinfer.ir import verify
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=SUITE)
def device(request) -> SuiteDevice:
    """Each device of the suite."""
    return usable(SUITE[request.param])


def check_program(cases: Cases, device: SuiteDevice, folder) -> Plan:
    """Run as one program the cases that the device has the dtypes for, and compare each with the oracle."""
    chosen_cases = computed(cases, device.dtypes)
    program = joined(list(chosen_cases.values()))
    plan = device.plan(graph_of(*program.outputs))
    with quick_builds():
        results = iter(device.run(plan, program.feeds, folder))
    for name, chosen in chosen_cases.items():
        for number, wanted in enumerate(evaluate(chosen.outputs, chosen.feeds)):
            try:
                device.compare(next(results), wanted, chosen)
            except AssertionError as error:
                raise AssertionError(f"{name}, output {number}: {error}") from None
    return plan


@pytest.mark.parametrize(
    "device, dtype", [(n, t) for n, d in SUITE.items() for t in d.dtypes], indirect=["device"]
)
def test_dtype(dtype, device, tmp_path):
    check_program(of_dtype(dtype, device.dtypes), device, tmp_path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, device, tmp_path):
    check_program(PROGRAMS[name](), device, tmp_path)


def test_loops(device, tmp_path):
    check_program(loops(), device, tmp_path)


@pytest.mark.parametrize("name", IMAGE_PROGRAMS)
def test_images(name, device, tmp_path):
    """QCOM keeps values and weights of these in images."""
    plan = check_program(IMAGE_PROGRAMS[name](), device, tmp_path)
    assert not isinstance(device, Qcom) or (plan.images and plan.parameter_images)


def _every_node(outputs: list[Node]) -> list[Node]:
    """The nodes of a graph and of the loops in it."""
    found = topological_order(outputs)
    return found + [y for x in found if x.op == "LOOP" for y in _every_node(list(x.attrs.outputs))]


@pytest.mark.parametrize("device", SUITE.values(), ids=SUITE)
def test_every_op_and_dtype_of_the_ir_has_a_case(device):
    dtypes = device.dtypes
    programs = [*(make() for make in PROGRAMS.values()), *(of_dtype(d, dtypes) for d in dtypes), loops()]
    outputs = [y for cases in programs for chosen in computed(cases, dtypes).values() for y in chosen.outputs]
    nodes = _every_node(outputs)
    have = {(x.op, (x.inputs[0] if x.inputs else x).dtype, x.is_reduce) for x in nodes}
    have |= {("WHERE", x.dtype, False) for x in nodes if x.op == "WHERE"}
    wanted = {(op, d, False) for op in ELEMENTWISE for d in dtypes if defined(op, d)}
    wanted |= {(op, d, True) for op in REDUCE for d in dtypes}
    wanted |= {(op, d, False) for op in ("INPUT", "VIEW", "CONCAT", "SCATTER") for d in dtypes}
    assert not wanted - have
    assert set(verify._CHECKS) <= {op for op, _, _ in have}
