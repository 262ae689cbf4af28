"""What runs in Oclgrind's process: `python oclgrind_run.py graphs FIRST COUNT`, `images DEVICE FIRST COUNT`,
`model DEVICE FILE FEEDS.npz`, `loops` or `mistakes`. Devices are those of the device suite."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[2]
FOLDERS = [TESTS / "kernels", *(TESTS / "backends" / x for x in ("clike", "qcom", "devices"))]
sys.path[:0] = [str(TESTS), *map(str, FOLDERS)]

from device_cases import random_cases  # noqa: E402
from device_graphs import GRAPHS, image_program  # noqa: E402
from device_suite import SUITE, check_program  # noqa: E402
from loop_graphs import counted, normalised, recurrent  # noqa: E402
from opencl_runs import MODELS, check, forced_tiles, run  # noqa: E402
from random_graphs import GENERATORS  # noqa: E402

from tinyinfer.backends.opencl.device import OpenclDevice  # noqa: E402
from tinyinfer.backends.opencl.platforms import opencl  # noqa: E402
from tinyinfer.frontend.onnx import import_graph, load_model  # noqa: E402
from tinyinfer.ir.passes import optimize  # noqa: E402

RACE = """
__kernel void race(__global float *out) {
    __local float shared[8];
    shared[get_local_id(0)] = get_local_id(0);
    out[get_global_id(0) + 1] = shared[7 - get_local_id(0)];
}"""


def graphs(first: int, count: int) -> None:
    """Random graphs, cut for this device and for others and into tiles, against the oracle."""
    for name in GENERATORS:
        for model in MODELS.values():
            check(random_cases(name, first, count), OpenclDevice(), model)
    for name in ("convolution", "matmul", "attention"):
        with forced_tiles(first) as model:
            check(random_cases(name, first, count), OpenclDevice(), model)


def images(device: str, first: int, count: int) -> None:
    """Random graphs whose values fill texels, against the oracle."""
    for name in GRAPHS:
        check_program(image_program(name, first, count), SUITE[device], Path())


def model(device: str, path: str, feeds: str) -> None:
    """A model, run twice."""
    arrays = dict(np.load(feeds))
    graph = import_graph(load_model(path), {name: value.shape for name, value in arrays.items()})
    SUITE[device].run(SUITE[device].model_plan(graph), arrays, Path())


def loops() -> None:
    """Loops that are one kernel."""
    random = np.random.default_rng(0)
    for graph in (recurrent(True), normalised(), counted()):
        feeds = {n: np.asarray(random.random(x.shape) * 4).astype(x.dtype) for n, x in graph.inputs.items()}
        run(optimize(graph), feeds, OpenclDevice())


def mistakes() -> None:
    """A kernel with a race and a write beyond the end of a buffer."""
    cl, context = opencl(), OpenclDevice().context()
    queue = cl.CommandQueue(context)
    program = cl.Program(context, RACE).build()
    cl.Kernel(program, "race")(queue, (8,), (8,), cl.Buffer(context, cl.mem_flags.READ_WRITE, 32))
    queue.finish()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, *arguments = sys.argv[1:]
    if what == "graphs":
        graphs(*map(int, arguments))
    elif what == "images":
        images(arguments[0], *map(int, arguments[1:]))
    elif what == "model":
        model(*arguments)
    elif what == "loops":
        loops()
    else:
        mistakes()
    print("ran")
