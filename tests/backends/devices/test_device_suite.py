"""Every op, every dtype, odd shapes and random graphs on every device, against the oracle."""

from __future__ import annotations

import pytest
from device_cases import PROGRAMS, computed, defined, of_dtype, random_cases
from device_graphs import GRAPHS, IMAGE_PROGRAMS, image_program, loops
from device_suite import SUITE, Qcom, SuiteDevice, check_program, usable
from random_graphs import GENERATORS

from tinyinfer.ir import verify
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=SUITE)
def device(request) -> SuiteDevice:
    """Each device of the suite."""
    return usable(SUITE[request.param])


@pytest.mark.parametrize(
    "device, dtype", [(n, t) for n, d in SUITE.items() for t in d.dtypes], indirect=["device"]
)
def test_dtype(dtype, device, tmp_path):
    check_program(of_dtype(dtype, device.dtypes, device.range_of.get(dtype, "")), device, tmp_path)


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


KINDS = {**dict.fromkeys(GENERATORS, random_cases), **dict.fromkeys(GRAPHS, image_program)}


@pytest.mark.sweep
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch", range(8))
def test_many_random_graphs(name, batch, device, tmp_path):
    for first in range(1000 + 20 * batch, 1020 + 20 * batch, 4):
        check_program(KINDS[name](name, first, 4), device, tmp_path)


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
