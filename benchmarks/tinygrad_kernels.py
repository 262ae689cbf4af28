"""The kernels that tinygrad makes of an ONNX model for an Adreno, as lines of JSON: a program of its own, run
by the Python that has tinygrad. It imports nothing of tinyinfer, and no GPU is needed.

    python benchmarks/tinygrad_kernels.py MODEL.onnx

As openpilot compiles its models: halves in images, no local sizes (tinygrad's runtime chooses those by timing
them on the GPU), the JIT's launches without those that only prepare weights. Each line is one launch, as
{"name", "source", "work_items"}; the last one {"version"}. Constants that decide shapes are computed by
tinygrad's Python device.
"""

import importlib.metadata
import json
import os
import re
import sys
from math import prod

SETTINGS = {
    "DEV": "NULL:OPENCL:a630,cl_khr_fp16,IMAGE_PITCH_ALIGNMENT=64",
    "IMAGE": "1",
    "FLOAT16": "1",
    "OPENPILOT_HACKS": "1",
    "JIT": "2",
    "NULL_ALLOW_COPYOUT": "1",
}


def main() -> None:
    """Print the kernels of the model that the first argument names."""
    os.environ.update(SETTINGS)
    from tinygrad import Tensor, TinyJit, dtypes
    from tinygrad.helpers import Context
    from tinygrad.nn.onnx import OnnxRunner
    from tinygrad.uop.ops import Ops

    def feeds(runner: OnnxRunner) -> dict:
        return {
            name: Tensor.empty(*(n if isinstance(n, int) else 1 for n in spec.shape), dtype=spec.dtype)
            .contiguous()
            .realize()
            for name, spec in runner.graph_inputs.items()
        }

    with Context(DEV="PYTHON"):
        runner = OnnxRunner(sys.argv[1])
        runner(feeds(runner))
    with Context(NOLOCALS=1):
        runner.to("NULL")

        def floats(value: Tensor) -> Tensor:
            return value.cast("float32") if value.dtype == dtypes.half else value

        given = feeds(runner)
        run = TinyJit(lambda **inputs: tuple(map(floats, runner(inputs).values())), prune=True)
        for _ in range(2):
            run(**given)
    calls = run.captured.linear.toposort(gate=lambda x: x.op is not Ops.PROGRAM)
    for call in calls:
        if call.op is not Ops.CALL or call.src[0].op is not Ops.PROGRAM:
            continue
        program = call.src[0]
        source = next(x.arg for x in program.src if x.op is Ops.SOURCE)
        items = prod(program.arg.global_size) * prod(program.arg.local_size or (1,))
        name = re.sub(r"\x1b\[\d*m", "", program.arg.name)
        print(json.dumps({"name": name, "source": source, "work_items": int(items)}))
    print(json.dumps({"version": importlib.metadata.version("tinygrad")}))


if __name__ == "__main__":
    main()
