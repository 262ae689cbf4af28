"""Every op, every dtype, odd shapes and random graphs on every device, against the oracle."""

from __future__ import annotations

import os

import pytest
from compiled import graph_of
from device_cases import DTYPES, PROGRAMS, Cases, defined, joined
from device_graphs import IMAGE_PROGRAMS, loops
from device_suite import SUITE, Qcom, SuiteDevice
from opencl_runs import quick_builds

from tinyinfer.ir import verify
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=SUITE)
def device(request) -> SuiteDevice:
    """Each device of the suite: missing, it fails in CI and skips elsewhere."""
    chosen = SUITE[request.param]
    reason = chosen.missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return chosen


def check_program(cases: Cases, device: SuiteDevice, folder) -> Plan:
    """Run those cases as one program that the device has the dtypes for, and compare each with the oracle."""
    computed = {
        name: chosen
        for name, chosen in cases.items()
        if all(x.dtype in device.dtypes for x in topological_order(chosen.outputs))
    }
    program = joined(list(computed.values()))
    plan = device.plan(graph_of(*program.outputs))
    with quick_builds():
        results = iter(device.run(plan, program.feeds, folder))
    for name, chosen in computed.items():
        for number, wanted in enumerate(evaluate(chosen.outputs, chosen.feeds)):
            try:
                device.compare(next(results), wanted, chosen)
            except AssertionError as error:
                raise AssertionError(f"{name}, output {number}: {error}") from None
    return plan


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


def test_every_op_and_dtype_of_the_ir_has_a_case():
    cases = [c for make in (*PROGRAMS.values(), loops) for c in make().values()]
    nodes = {x for c in cases for x in _every_node(c.outputs)}
    have = {(x.op, (x.inputs[0] if x.inputs else x).dtype, x.is_reduce) for x in nodes}
    have |= {("WHERE", x.dtype, False) for x in nodes if x.op == "WHERE"}
    wanted = {(op, d, False) for op in ELEMENTWISE for d in DTYPES if defined(op, d)}
    wanted |= {(op, d, True) for op in REDUCE for d in DTYPES}
    wanted |= {(op, d, False) for op in ("INPUT", "VIEW", "CONCAT", "SCATTER") for d in DTYPES}
    assert not wanted - have
    assert set(verify._CHECKS) <= {op for op, _, _ in have}
