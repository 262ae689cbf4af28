"""The process that compiles kernels inside the Mesa tree: a program of its own, it imports nothing of
tinyinfer.

Requests are lines of JSON on standard input, {"source", "options"}. For each there is one line on standard
output: {"max_work_group", "local_bytes", "private_bytes"}, or {"error"} where it does not compile. The first
line says {"device", "driver"}. Mesa itself writes statistics and machine code to standard error.
"""

import json
import sys


def main() -> None:
    """Answer requests until standard input ends."""
    import pyopencl as cl

    device = cl.get_platforms()[0].get_devices()[0]
    context = cl.Context([device])
    ask = cl.kernel_work_group_info
    answer({"device": device.name, "driver": device.driver_version})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            program = cl.Program(context, request["source"]).build(request["options"])
            kernels = program.all_kernels()
            if len(kernels) != 1:
                raise ValueError(f"one kernel a source is needed, this has {len(kernels)}")
            answer(
                {
                    "max_work_group": kernels[0].get_work_group_info(ask.WORK_GROUP_SIZE, device),
                    "local_bytes": kernels[0].get_work_group_info(ask.LOCAL_MEM_SIZE, device),
                    "private_bytes": kernels[0].get_work_group_info(ask.PRIVATE_MEM_SIZE, device),
                }
            )
        except Exception as error:
            answer({"error": str(error)})


def answer(what: dict) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
