"""A fake GPU that runs plans: for each dispatch it decodes, it runs the kernel's OpenCL C on this machine.

Nothing of the plan reaches it but the command stream: buffers, offsets, images and sizes are what the
constants and descriptors in the GPU's memory say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyopencl as cl
from fake_kgsl import FakeKgsl
from pm4_decoder import BadStream, Launched, View

from tinyinfer.backends.opencl.programs import all_launches
from tinyinfer.backends.qcom.kgsl.mesa_compiler import GroupKernel
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel
from tinyinfer.backends.qcom.kgsl.shader import (
    BufferSlot,
    ImageSlot,
    ScalarSlot,
    ShaderBinary,
    Slot,
    StorageImageSlot,
)
from tinyinfer.runtime.plan import Plan

OF_TEXEL = {8: (cl.channel_type.HALF_FLOAT, 8), 16: (cl.channel_type.FLOAT, 16)}


class OpenclGpu(FakeKgsl):
    """A fake GPU that knows these kernels, by key, and runs them in an OpenCL context."""

    def __init__(
        self,
        chip_id: int,
        context: cl.Context,
        texts: Mapping[str, GroupKernel],
        kernels: Mapping[str, MesaKernel],
    ):
        super().__init__(chip_id)
        self.context, self.queue = context, cl.CommandQueue(context)
        self.known: dict[bytes, tuple[GroupKernel, MesaKernel]] = {
            kernels[key].shader.code: (texts[key], kernels[key]) for key in texts
        }
        self.built: dict[bytes, cl.Kernel] = {}

    def _start(self, launched: Launched) -> None:
        self.launched.append(launched)
        found = self.known.get(launched.code)
        if found is None:
            raise BadStream("code that is none of the plan's")
        text, made = found
        if launched.local != tuple(text.local):
            raise BadStream(f"groups of {launched.local}")
        if launched.code not in self.built:
            program = cl.Program(self.context, text.text.source).build([text.text.options])
            (self.built[launched.code],) = program.all_kernels()
        kernel = self.built[launched.code]
        values: dict[int, object] = {}
        back: list[tuple[object, object]] = []
        begins: dict[int, int] = {}
        for slot, number in zip(made.shader.slots, made.takes):
            if isinstance(slot, ScalarSlot):
                content = launched.constants[slot.offset : slot.offset + slot.size]
                values[number] = np.frombuffer(content, f"u{slot.size}")[0]
            elif isinstance(slot, BufferSlot):
                address = int(np.frombuffer(launched.constants, np.uint64, 1, slot.offset)[0])
                item, at = self.find(address, 1)
                begins[number] = at
                memory = np.frombuffer(item.memory, np.uint8)[at:]
                values[number] = cl.Buffer(
                    self.context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=memory
                )
                back.append((values[number], memory))
            else:
                views = launched.textures if isinstance(slot, ImageSlot) else launched.uavs
                values[number] = self._image(views[slot.index])
                if not isinstance(slot, ImageSlot):
                    back.append((values[number], views[slot.index]))
        # what the code does not read has no place in the constants, and any value will do
        unused = cl.Buffer(self.context, cl.mem_flags.READ_WRITE, 16)
        for number in range(kernel.num_args):
            value = values.get(number, np.uint64(0) if number - 1 in values else unused)
            kernel.set_arg(number, value)
        total = tuple(g * n for g, n in zip(launched.groups, launched.local))
        before = [m.copy() if isinstance(m, np.ndarray) else None for _, m in back]
        cl.enqueue_nd_range_kernel(self.queue, kernel, total, launched.local)
        for (device, place), old in zip(back, before):
            if isinstance(place, View):
                self._store(device, place)
                continue
            new = np.empty_like(place)
            cl.enqueue_copy(self.queue, new, device)
            # several arguments may lie in one buffer: only what this one changed is written
            changed = new != old
            place[changed] = new[changed]

    def _rows(self, view: View) -> np.ndarray:
        item, at = self.find(view.address, view.pitch * view.height)
        memory = np.frombuffer(item.memory, np.uint8)[at : at + view.pitch * view.height]
        return memory.reshape(view.height, view.pitch)[:, : view.width * view.texel_bytes]

    def _image(self, view: View) -> cl.Image:
        kind, _ = OF_TEXEL[view.texel_bytes]
        form = cl.ImageFormat(cl.channel_order.RGBA, kind)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        rows = np.ascontiguousarray(self._rows(view))
        return cl.create_image(self.context, flags, form, shape=(view.width, view.height), hostbuf=rows)

    def _store(self, image: cl.Image, view: View) -> None:
        rows = np.empty((view.height, view.width * view.texel_bytes), np.uint8)
        cl.enqueue_copy(self.queue, rows, image, origin=(0, 0), region=(view.width, view.height))
        self._rows(view)[:] = rows


def stand_ins(plan: Plan) -> dict[str, MesaKernel]:
    """For each kernel of a plan, by key, what could be its machine code: unlike any other, its arguments one
    after the other."""
    made: dict[str, MesaKernel] = {}
    for launch in all_launches(plan.launches):
        if launch.loop is not None:
            continue
        slots: list[Slot] = []
        written = textures = 0
        text = launch.kernel.text()
        head = text[text.index("(", text.index(f" {launch.kernel.name}(")) :]
        declared = head[1 : head.index(")")].split(",")
        for number, parameter in enumerate(declared):
            if "image2d_t" not in parameter:
                offset = 64 + 8 * number
                slots.append(BufferSlot(offset) if "*" in parameter else ScalarSlot(offset, 8))
            elif "read_only" in parameter:
                slots.append(ImageSlot(textures))
                textures += 1
            else:
                slots.append(StorageImageSlot(written))
                written += 1
        code = hashlib.sha256(launch.kernel.key.encode()).digest() * 4
        shader = ShaderBinary(
            launch.kernel.name,
            code,
            full_registers=4,
            half_registers=0,
            constants=-(-(64 + 8 * len(declared)) // 64) * 4,
            slots=tuple(slots),
            samplers=textures,
            bindless_uavs=32 if written else None,
        )
        made[launch.kernel.key] = MesaKernel(shader, tuple(range(len(declared))))
    return made
