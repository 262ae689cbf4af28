"""The process that launches kernels on Mesa's device that does nothing, and hands out what that device would
have read: a program of its own, it imports nothing of tinyinfer.

Requests are lines of JSON on standard input, {"source", "options", "local"}: one kernel and the work-items of
a group. It is launched twice, everything that a caller can choose being different, and for each request there
is one line on standard output: {"local_bytes", "launches", "memory"}, or {"error"}. A launch is {"groups",
"arguments"}, an argument one of

    {"kind": "buffer", "token": four words that repeat all over the buffer}
    {"kind": "number", "content": its bytes in hexadecimal}
    {"kind": "image", "writes": whether the kernel writes it, "width", "height" in texels of four halves}

and memory (zlib, base64) the pages in use of the device's memory: for each run of them the address, the
number of bytes (two 64-bit numbers) and the bytes. The first line says {"device", "driver"}.
"""

import base64
import itertools
import json
import os
import struct
import sys
import zlib

import numpy as np
import pyopencl as cl

LEAST_MEMORY = 1 << 30
"""The stand-in device keeps all of its memory in one file, which is by far the largest of the process."""

NUMBERS = {"uint": 4, "int": 4, "float": 4, "ulong": 8, "long": 8}
BUFFER_BYTES = 1 << 12


def main() -> None:
    """Answer requests until standard input ends."""
    device = cl.get_platforms()[0].get_devices()[0]
    context = cl.Context([device])
    unique = itertools.count(1)
    answer({"device": device.name, "driver": device.driver_version})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            options = [*request["options"], "-cl-kernel-arg-info"]
            program = cl.Program(context, request["source"]).build(options)
            kernels = program.all_kernels()
            if len(kernels) != 1:
                raise ValueError(f"one kernel a source is needed, this has {len(kernels)}")
            kernel, local = kernels[0], tuple(request["local"])
            launches = [launch(context, kernel, local, unique) for _ in range(2)]
            answer(
                {
                    "local_bytes": kernel.get_work_group_info(
                        cl.kernel_work_group_info.LOCAL_MEM_SIZE, device
                    ),
                    "launches": launches,
                    "memory": base64.b64encode(zlib.compress(memory(), 1)).decode(),
                }
            )
        except Exception as error:
            answer({"error": str(error)})


def launch(context: cl.Context, kernel: cl.Kernel, local: tuple, unique: itertools.count) -> dict:
    """Launch once; what it was launched with."""
    # after the device that never answers, the driver sends nothing more of the same queue
    queue = cl.CommandQueue(context)
    described, held = [], []
    for number in range(kernel.num_args):
        what, value = argument(context, kernel, number, next(unique))
        described.append(what)
        held.append(value)
    count = next(unique)
    groups = (4096 + count, 2 + count % 61, 3 + count % 53)
    kernel(queue, tuple(g * n for g, n in zip(groups, local)), local, *held)
    queue.finish()
    return {"groups": groups, "arguments": described}


def argument(context: cl.Context, kernel: cl.Kernel, number: int, unique: int) -> tuple:
    """An argument of the kind that the kernel declares, in words and as pyopencl takes it."""
    info, flags = cl.kernel_arg_info, cl.mem_flags
    kind = str(kernel.get_arg_info(number, info.TYPE_NAME))
    if kernel.get_arg_info(number, info.ADDRESS_QUALIFIER) == cl.kernel_arg_address_qualifier.PRIVATE:
        if kind not in NUMBERS:
            raise ValueError(f"argument {number} is a {kind}")
        content = struct.pack("<II", 0x5EED0000 + unique, 0x7AB50000 + unique)[: NUMBERS[kind]]
        return {"kind": "number", "content": content.hex()}, np.frombuffer(content, f"V{len(content)}")[0]
    if kind.startswith("image2d_t"):
        writes = (
            kernel.get_arg_info(number, info.ACCESS_QUALIFIER) != cl.kernel_arg_access_qualifier.READ_ONLY
        )
        form = cl.ImageFormat(cl.channel_order.RGBA, cl.channel_type.HALF_FLOAT)
        width, height = 16 + unique % 4001, 5 + unique % 31
        value = cl.create_image(context, flags.READ_WRITE, form, shape=(width, height))
        return {"kind": "image", "writes": writes, "width": width, "height": height}, value
    token = [0x70C3A001, unique, 0x9E3779B9 * unique & 0xFFFFFFFF, 0x4B5A6978]
    pattern = np.tile(np.array(token, np.uint32), BUFFER_BYTES // 16)
    buffer = cl.Buffer(context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=pattern)
    return {"kind": "buffer", "token": token}, buffer


def memory() -> bytes:
    """The pages of the device's memory that were ever touched."""
    parts: list[bytes] = []
    descriptor = next(d for d in range(3, 256) if file_size(d) >= LEAST_MEMORY)
    position = 0
    while True:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            return b"".join(parts)
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        parts += [struct.pack("<QQ", start, position - start), os.pread(descriptor, position - start, start)]


def file_size(descriptor: int) -> int:
    """Bytes of an open file; 0 where there is none."""
    try:
        return os.fstat(descriptor).st_size
    except OSError:
        return 0


def answer(what: dict) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
