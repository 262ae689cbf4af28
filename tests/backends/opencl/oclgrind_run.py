"""What runs in Oclgrind's process: `python oclgrind_run.py graphs FIRST COUNT`, `model FILE FEEDS.npz`,
`loops` or `mistakes`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "kernels"), str(TESTS / "backends" / "clike")]

from device_cases import random_cases  # noqa: E402
from loop_graphs import counted, normalised, recurrent  # noqa: E402
from opencl_runs import MODELS, check, executable, run  # noqa: E402
from random_graphs import GENERATORS  # noqa: E402

from tinyinfer.backends.opencl.device import OpenclDevice  # noqa: E402
from tinyinfer.backends.opencl.platforms import opencl  # noqa: E402
from tinyinfer.frontend.onnx import import_graph, load_model  # noqa: E402
from tinyinfer.ir.passes import optimize  # noqa: E402
from tinyinfer.ir.passes.storage_types import use_storage_types  # noqa: E402

RACE = """
__kernel void race(__global float *out) {
    __local float shared[8];
    shared[get_local_id(0)] = get_local_id(0);
    out[get_global_id(0) + 1] = shared[7 - get_local_id(0)];
}"""


def graphs(first: int, count: int) -> None:
    """Random graphs, cut for this device and for others, against the oracle."""
    for name in GENERATORS:
        for model in MODELS.values():
            check(random_cases(name, first, count), OpenclDevice(), model)


def model(path: str, feeds: str) -> None:
    """One run of a model."""
    device, arrays = OpenclDevice(), dict(np.load(feeds))
    graph = import_graph(load_model(path), {name: value.shape for name, value in arrays.items()})
    made = executable(optimize(use_storage_types(graph)), device)
    made.run([np.ascontiguousarray(arrays[spec.name]) for spec in made.inputs])


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
        graphs(int(arguments[0]), int(arguments[1]))
    elif what == "model":
        model(*arguments)
    elif what == "loops":
        loops()
    else:
        mistakes()
    print("ran")
