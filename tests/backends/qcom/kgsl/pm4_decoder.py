"""An independent reader of PM4 streams: what a6xx and a7xx would do with them.

It shares no table and no code with `tinyinfer.backends.qcom.kgsl`: numbers are masks and absolute register
numbers, not fields. What it does not know is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OPERATIONS = {
    0x12: "WAIT_MEM_WRITES",
    0x17: "THREAD_CONTROL",
    0x26: "WAIT_FOR_IDLE",
    0x31: "RUN_OPENCL",
    0x33: "EXEC_CS",
    0x34: "LOAD_STATE6_FRAG",
    0x3E: "REG_TO_MEM",
    0x46: "EVENT_WRITE",
    0x65: "SET_MARKER",
}

COMMON_REGISTERS = {
    0x0E12: "UCHE_UNKNOWN_0E12",
    0xA9B0: "SP_CS_CNTL_0",
    0xA9B1: "SP_CS_CNTL_1",
    0xA9B2: "SP_CS_BOOLEAN_CF_MASK",
    0xA9B3: "SP_CS_PROGRAM_COUNTER_OFFSET",
    0xA9B4: "SP_CS_BASE.lo",
    0xA9B5: "SP_CS_BASE.hi",
    0xA9B6: "SP_CS_PVT_MEM_PARAM",
    0xA9B7: "SP_CS_PVT_MEM_BASE.lo",
    0xA9B8: "SP_CS_PVT_MEM_BASE.hi",
    0xA9B9: "SP_CS_PVT_MEM_SIZE",
    0xA9BA: "SP_CS_TSIZE",
    0xA9BB: "SP_CS_CONFIG",
    0xA9BC: "SP_CS_INSTR_SIZE",
    0xA9BD: "SP_CS_PVT_MEM_STACK_OFFSET",
    0xA9C2: "SP_CS_WIE_CNTL_0",
    0xA9C3: "SP_CS_WIE_CNTL_1",
    0xA9E2: "SP_CS_SAMPLER_BASE.lo",
    0xA9E3: "SP_CS_SAMPLER_BASE.hi",
    0xA9E6: "SP_CS_TEXMEMOBJ_BASE.lo",
    0xA9E7: "SP_CS_TEXMEMOBJ_BASE.hi",
    0xAA00: "SP_CS_USIZE",
    0xAB00: "SP_MODE_CNTL",
    0xAB05: "SP_PS_INSTR_SIZE",
    0xAE00: "SP_DBG_ECO_CNTL",
    0xAE03: "SP_CHICKEN_BITS",
    0xAE04: "SP_NC_MODE_CNTL_2",
    0xAE0F: "SP_PERFCTR_SHADER_MASK",
    0xB180: "TPL1_CS_BORDER_COLOR_BASE.lo",
    0xB181: "TPL1_CS_BORDER_COLOR_BASE.hi",
    0xB309: "TPL1_MODE_CNTL",
    0xB600: "TPL1_DBG_ECO_CNTL",
}
A6XX_REGISTERS = {
    **COMMON_REGISTERS,
    0xA9E8: "SP_CS_BINDLESS_BASE.lo",
    0xA9E9: "SP_CS_BINDLESS_BASE.hi",
    0xB9C0: "HLSQ_CS_BINDLESS_BASE.lo",
    0xB9C1: "HLSQ_CS_BINDLESS_BASE.hi",
    0xA9F2: "SP_CS_UAV_BASE.lo",
    0xA9F3: "SP_CS_UAV_BASE.hi",
    0xB980: "SP_PS_WAVE_CNTL",
    0xB983: "SP_REG_PROG_ID_0",
    0xB984: "SP_REG_PROG_ID_1",
    0xB985: "SP_REG_PROG_ID_2",
    0xB986: "SP_REG_PROG_ID_3",
    0xB987: "SP_CS_CONST_CONFIG",
    0xB990: "SP_CS_NDRANGE_0",
    0xB991: "SP_CS_NDRANGE_1",
    0xB992: "SP_CS_NDRANGE_2",
    0xB993: "SP_CS_NDRANGE_3",
    0xB994: "SP_CS_NDRANGE_4",
    0xB995: "SP_CS_NDRANGE_5",
    0xB996: "SP_CS_NDRANGE_6",
    0xB997: "SP_CS_CONST_CONFIG_0",
    0xB998: "SP_CS_WGE_CNTL",
    0xB999: "SP_CS_KERNEL_GROUP_X",
    0xB99A: "SP_CS_KERNEL_GROUP_Y",
    0xB99B: "SP_CS_KERNEL_GROUP_Z",
    0xB9D0: "HLSQ_CS_CTRL_REG1",
    0xBB08: "SP_UPDATE_CNTL",
    0xBE04: "HLSQ_DBG_ECO_CNTL",
}
A7XX_REGISTERS = {
    **COMMON_REGISTERS,
    0xA9C5: "SP_CS_VGS_CNTL",
    0xA9C6: "SP_PS_WAVE_CNTL",
    0xA9C8: "SP_REG_PROG_ID_0",
    0xA9C9: "SP_REG_PROG_ID_1",
    0xA9CA: "SP_REG_PROG_ID_2",
    0xA9CB: "SP_REG_PROG_ID_3",
    0xA9CD: "SP_CS_CONST_CONFIG",
    0xA9D4: "SP_CS_NDRANGE_0",
    0xA9D5: "SP_CS_NDRANGE_1",
    0xA9D6: "SP_CS_NDRANGE_2",
    0xA9D7: "SP_CS_NDRANGE_3",
    0xA9D8: "SP_CS_NDRANGE_4",
    0xA9D9: "SP_CS_NDRANGE_5",
    0xA9DA: "SP_CS_NDRANGE_6",
    0xA9DB: "SP_CS_WGE_CNTL",
    0xA9DC: "SP_CS_KERNEL_GROUP_X",
    0xA9DD: "SP_CS_KERNEL_GROUP_Y",
    0xA9DE: "SP_CS_KERNEL_GROUP_Z",
    0xA9DF: "SP_CS_NDRANGE_7",
    0xA9F8: "SP_CS_UAV_BASE.lo",
    0xA9F9: "SP_CS_UAV_BASE.hi",
    0xAB1F: "SP_UPDATE_CNTL",
    0xAE08: "SP_CHICKEN_BITS_1",
    0xAE09: "SP_CHICKEN_BITS_2",
    0xAE0A: "SP_CHICKEN_BITS_3",
    0xAE6C: "HLSQ_DBG_ECO_CNTL",
    0xB602: "TPL1_DBG_ECO_CNTL1",
}
NAMES = {6: A6XX_REGISTERS, 7: A7XX_REGISTERS}

FORMAT_BYTES = {3: 1, 23: 2, 48: 4, 74: 4, 75: 4, 98: 8, 130: 16}
EVENTS = {
    6: {4: "CACHE_FLUSH_TS", 49: "CACHE_INVALIDATE", 63: "LABEL"},
    7: {49: "CACHE_CLEAN", 51: "CACHE_INVALIDATE", 63: "LABEL"},
}
LOADS = {
    (0, 13): "code",
    (1, 13): "constants",
    (3, 13): "uavs",
    (0, 5): "samplers",
    (1, 5): "textures",
}
LOAD_UNIT_BYTES = {"code": 128, "constants": 16, "uavs": 64, "samplers": 16, "textures": 64}


class BadStream(Exception):
    """The command processor would stop here, or do what nobody meant."""


@dataclass
class Packet:
    position: int
    operation: str
    register: int
    payload: list[int]


@dataclass
class View:
    """An image or buffer descriptor, decoded."""

    address: int
    width: int
    height: int
    pitch: int
    texel_bytes: int
    swizzle: tuple[int, ...]
    kind: str


@dataclass
class Launched:
    """A dispatch as the shader processors would see it."""

    packet: str
    groups: tuple[int, int, int]
    local: tuple[int, int, int]
    code: bytes
    constants: bytes
    textures: list[View]
    uavs: list[View]
    samplers: int
    full_registers: int
    half_registers: int
    local_kib: int
    private: tuple[int, int, int]
    """Address, bytes for an item, bytes for a shader processor."""

    double_wave: bool
    isam_mode: int
    waited: bool
    """Whether everything before had finished, and caches were flushed and invalidated."""

    registers: dict[str, int] = field(repr=False)


def ones_are_odd(bits: int) -> bool:
    while bits > 1:
        bits = (bits >> 1) ^ (bits & 1)
    return bits == 1


def packets(words: list[int]) -> Iterator[Packet]:
    """Split a stream; BadStream where a header is wrong or a packet runs past the end."""
    position = 0
    while position < len(words):
        header = words[position]
        if header & 0xF0000000 == 0x70000000:
            count, operation = header & 0x3FFF, (header >> 16) & 0x7F
            if header & 0x0F004000:
                raise BadStream(f"word {position}: {header:08x} has bits that a type 7 header has not")
            if not ones_are_odd(header & 0xBFFF) or not ones_are_odd((header >> 16) & 0xFF):
                raise BadStream(f"word {position}: parity of {header:08x}")
            if operation not in OPERATIONS:
                raise BadStream(f"word {position}: operation 0x{operation:02x}")
            name, register = OPERATIONS[operation], 0
        elif header & 0xF0000000 == 0x40000000:
            count, register, name = header & 0x7F, (header >> 8) & 0x3FFFF, "WRITE"
            if header & 0x04000000:
                raise BadStream(f"word {position}: {header:08x} has bits that a type 4 header has not")
            if not ones_are_odd(header & 0xFF) or not ones_are_odd((header >> 8) & 0xFFFFF):
                raise BadStream(f"word {position}: parity of {header:08x}")
        else:
            raise BadStream(f"word {position}: {header:08x} is no header")
        payload = words[position + 1 : position + 1 + count]
        if len(payload) != count:
            raise BadStream(f"word {position}: {name} runs past the end")
        yield Packet(position, name, register, payload)
        position += 1 + count


def listing(words: list[int], generation: int) -> str:
    """A line for each packet: its words, and what they say; register writes a line for each register."""
    lines = []
    for packet in packets(words):
        header = words[packet.position]
        if packet.operation != "WRITE":
            text = " ".join(f"{word:08x}" for word in [header, *packet.payload])
            lines.append(f"{text}  ; {packet.operation}{_explain(packet, generation)}")
            continue
        lines.append(f"{header:08x}  ; WRITE {len(packet.payload)} from 0x{packet.register:04x}")
        for offset, value in enumerate(packet.payload):
            register = packet.register + offset
            name = NAMES[generation].get(register)
            if name is None:
                raise BadStream(
                    f"word {packet.position}: register 0x{register:04x} of generation {generation}"
                )
            lines.append(f"{value:08x}  ;   {name}")
    return "\n".join(lines) + "\n"


def listed_words(text: str) -> list[int]:
    """The words of a listing."""
    return [int(word, 16) for line in text.splitlines() for word in line.split(";")[0].split()]


def _explain(packet: Packet, generation: int) -> str:
    first = packet.payload[0] if packet.payload else 0
    if packet.operation == "LOAD_STATE6_FRAG":
        what = LOADS.get(((first >> 14) & 3, (first >> 18) & 15), "?")
        return f" {first >> 22} units of {what} from 0x{packet.payload[2]:x}{packet.payload[1]:08x}"
    if packet.operation == "EVENT_WRITE":
        return f" {EVENTS[generation].get(first & 0xFF, '?')}"
    if packet.operation == "SET_MARKER":
        return f" mode {first & 15}"
    if packet.operation == "EXEC_CS":
        return f" {packet.payload[1]} x {packet.payload[2]} x {packet.payload[3]} work-groups"
    if packet.operation == "REG_TO_MEM":
        return f" {(first >> 18) & 0xFFF} registers from 0x{first & 0x3FFFF:x}"
    return ""


class Machine:
    """Runs streams. `read(address, size)` and `write(address, bytes)` reach the GPU's memory."""

    def __init__(
        self,
        generation: int,
        read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], None],
        start: Callable[[Launched], None],
    ):
        self.names = NAMES[generation]
        self.generation = generation
        self.read, self.write, self.start = read, write, start
        self.counter = 1000

    def run(self, words: list[int]) -> None:
        """Execute a stream from a state in which nothing is known."""
        self.registers: dict[str, int] = {}
        self.loaded: dict[str, tuple[int, int]] = {}
        self.marker = -1
        self.flushed = self.invalidated = self.idle = False
        for packet in packets(words):
            getattr(self, "_" + packet.operation.lower())(
                *([packet] if packet.operation == "WRITE" else packet.payload)
            )
        if not (self.flushed and self.idle):
            raise BadStream("the stream ends with results in the GPU's caches")

    def _write(self, packet: Packet) -> None:
        for offset, value in enumerate(packet.payload):
            register = packet.register + offset
            if register not in self.names:
                raise BadStream(f"register 0x{register:04x} is not one of this GPU's compute registers")
            self.registers[self.names[register]] = value

    def _set_marker(self, value: int) -> None:
        self.marker = value

    def _thread_control(self, value: int) -> None:
        if self.generation != 7 or value != 0x08000001:
            raise BadStream(f"THREAD_CONTROL {value:08x}")

    def _wait_for_idle(self) -> None:
        self.idle = True
        self.counter += 7

    def _wait_mem_writes(self) -> None:
        pass

    def _event_write(self, event: int, low: int | None = None, high: int = 0, value: int = 0) -> None:
        name = EVENTS[self.generation].get(event)
        if name is None:
            raise BadStream(f"event {event:08x}")
        if (name == "CACHE_FLUSH_TS") != (low is not None):
            raise BadStream(f"event {name} with an address, or without the one that it needs")
        if low is not None:
            self.write(high << 32 | low, struct.pack("<I", value))
        if name == "CACHE_CLEAN" and not self.idle:
            raise BadStream("caches are cleaned while shaders may still write")
        self.flushed |= name in ("CACHE_FLUSH_TS", "CACHE_CLEAN")
        self.invalidated |= name == "CACHE_INVALIDATE"

    def _reg_to_mem(self, what: int, low: int, high: int) -> None:
        if what != 0x40080980 or not self.idle:
            raise BadStream(f"REG_TO_MEM {what:08x} while work is under way, or of another register")
        self.counter += 100
        self.write(high << 32 | low, struct.pack("<Q", self.counter))

    def _load_state6_frag(self, what: int, low: int, high: int) -> None:
        kind = LOADS.get(((what >> 14) & 3, (what >> 18) & 15))
        if kind == "uavs" and (what >> 16) & 3 == 1 and self.generation == 6:
            return self._load_set(what & 0x3FFF, what >> 22, low, high)
        if kind is None or (what >> 16) & 3 != 2 or what & 0x3FFF:
            raise BadStream(f"LOAD_STATE6 {what:08x}")
        address, units = high << 32 | low, what >> 22
        if low & 3 or not units:
            raise BadStream(f"LOAD_STATE6 of {units} units from {address:x}")
        self.read(address, units * LOAD_UNIT_BYTES[kind])
        self.loaded[kind] = address, units

    def _load_set(self, first: int, units: int, offset: int, high: int) -> None:
        """UAVs of descriptor set 0; the offset is in words."""
        base = self._address("SP_CS_BINDLESS_BASE")
        if base & 63 != 3 or base != self._address("HLSQ_CS_BINDLESS_BASE"):
            raise BadStream(f"descriptors of 64 bytes in a set at {base:x}")
        if offset != first * 16 or high or not units or self.registers["SP_UPDATE_CNTL"] != 0x3E00:
            raise BadStream(f"{units} descriptors from {first}, at word {offset}")
        self.loaded["set"] = (base & ~63) + first * 64, units

    def _exec_cs(self, zero: int, x: int, y: int, z: int) -> None:
        if zero:
            raise BadStream("EXEC_CS begins with a zero")
        self._launch("EXEC_CS", (x, y, z))

    def _run_opencl(self, zero: int) -> None:
        if zero or self.generation != 6:
            raise BadStream("RUN_OPENCL")
        get = self.registers
        self._launch("RUN_OPENCL", tuple(get[f"SP_CS_KERNEL_GROUP_{axis}"] for axis in "XYZ"))

    def _launch(self, packet: str, groups: tuple[int, ...]) -> None:
        get = self.registers
        if self.marker & 0x1F != 8:
            raise BadStream(f"a dispatch under marker {self.marker}")
        range_0 = get["SP_CS_NDRANGE_0"]
        local = ((range_0 >> 2 & 1023) + 1, (range_0 >> 12 & 1023) + 1, (range_0 >> 22) + 1)
        sizes = tuple(get[f"SP_CS_NDRANGE_{number}"] for number in (1, 3, 5))
        if range_0 & 3 != 3 or sizes != tuple(g * n for g, n in zip(groups, local)):
            raise BadStream(f"{groups} groups of {local} items do not make {sizes}")
        if tuple(get[f"SP_CS_KERNEL_GROUP_{axis}"] for axis in "XYZ") != tuple(groups):
            raise BadStream("SP_CS_KERNEL_GROUP differs from the packet")
        control_0, control_1, config = get["SP_CS_CNTL_0"], get["SP_CS_CNTL_1"], get["SP_CS_CONFIG"]
        double = bool(control_0 & 0x00100000)
        if self.generation == 7:
            if get["SP_CS_NDRANGE_7"] != range_0 & ~3:
                raise BadStream("SP_CS_NDRANGE_7 differs from SP_CS_NDRANGE_0")
            if bool(get["SP_CS_WIE_CNTL_1"] & 0x100) != double:
                raise BadStream("the size of waves in SP_CS_WIE_CNTL_1")
        if not config & 0x100 or not get["SP_CS_CONST_CONFIG"] & 0x100:
            raise BadStream("the shader is not enabled")
        textures, samplers, uavs = config >> 9 & 255, config >> 17 & 31, config >> 22 & 127
        bindless = bool(config & 4)
        if config & 0xE000000B or bindless and self.generation == 7:
            raise BadStream(f"SP_CS_CONFIG {config:08x}")
        if (get["SP_CS_TSIZE"], get["SP_CS_USIZE"]) != (textures, 0 if bindless else uavs):
            raise BadStream("descriptor counts differ")
        views = "set" if bindless else "uavs"
        if bindless and self.loaded.get("set", (0, 0))[1] != uavs:
            raise BadStream(f"{uavs} UAVs are used, {self.loaded.get('set')} loaded")
        plain = 0 if bindless else uavs
        for kind, units in (("textures", textures), ("samplers", samplers), ("uavs", plain)):
            if units and self.loaded.get(kind, (0, 0))[1] != units:
                raise BadStream(f"{units} {kind} are used, {self.loaded.get(kind)} loaded")
            base = {"textures": "TEXMEMOBJ", "samplers": "SAMPLER", "uavs": "UAV"}[kind]
            if units and self._address(f"SP_CS_{base}_BASE") != self.loaded[kind][0]:
                raise BadStream(f"SP_CS_{base}_BASE is not where the {kind} were loaded from")
        vectors = (get["SP_CS_CONST_CONFIG"] & 255) * 4
        constants_at, constant_units = self.loaded.get("constants", (0, 0))
        if constant_units > vectors or vectors > (128, 192, 256, 512)[control_1 >> 5 & 3]:
            raise BadStream(f"{constant_units} constants, room for {vectors}, mode {control_1 >> 5 & 3}")
        code_at = self._address("SP_CS_BASE")
        code_bytes = get["SP_CS_INSTR_SIZE"] * 128
        if code_at % 32 or self.loaded["code"][0] != code_at or self.loaded["code"][1] * 128 > code_bytes:
            raise BadStream("the code that is loaded is not the code that runs")
        launched = Launched(
            packet=packet,
            groups=groups,  # type: ignore[arg-type]
            local=local,
            code=self.read(code_at, code_bytes)[get["SP_CS_PROGRAM_COUNTER_OFFSET"] :],
            constants=self.read(constants_at, constant_units * 16) if constant_units else b"",
            textures=self._views("textures", textures),
            uavs=self._views(views, uavs),
            samplers=samplers,
            full_registers=control_0 >> 7 & 63,
            half_registers=control_0 >> 1 & 63,
            local_kib=(control_1 & 31) + 1 if control_1 & 31 else 32,
            private=(
                self._address("SP_CS_PVT_MEM_BASE"),
                (get["SP_CS_PVT_MEM_PARAM"] & 255) * 512,
                (get["SP_CS_PVT_MEM_SIZE"] & 0x3FFFF) * 4096,
            ),
            double_wave=double,
            isam_mode=get["TPL1_MODE_CNTL"] & 3,
            waited=self.flushed and self.invalidated and self.idle,
            registers=dict(get),
        )
        if launched.isam_mode != get["SP_MODE_CNTL"] >> 1 & 3:
            raise BadStream("SP and TPL1 read images differently")
        self.start(launched)
        self.flushed = self.invalidated = self.idle = False

    def _address(self, register: str) -> int:
        return self.registers[register + ".hi"] << 32 | self.registers[register + ".lo"]

    def _views(self, kind: str, count: int) -> list[View]:
        if not count:
            return []
        data = self.read(self.loaded[kind][0], count * 64)
        return [decode_view(struct.unpack_from("<16I", data, 64 * index)) for index in range(count)]


def decode_view(words: tuple[int, ...]) -> View:
    """An image or buffer descriptor."""
    texel = FORMAT_BYTES.get(words[0] >> 22 & 255)
    if texel is None or words[0] & 0xC00F000F or any(words[6:]):
        raise BadStream(f"descriptor {words[0]:08x} …")
    swizzle = tuple(words[0] >> shift & 7 for shift in (4, 7, 10, 13))
    base = (words[5] & 0x1FFFF) << 32 | words[4] & ~31
    width, height = words[1] & 0x7FFF, words[1] >> 15 & 0x7FFF
    kind = words[2] >> 29
    if kind == 4:
        if words[2] >> 4 & 0xFFF != 1:
            raise BadStream("a buffer view of structures")
        texels = height << 15 | width
        return View(base + (words[2] >> 16 & 63) * texel, texels, 1, 0, texel, swizzle, "buffer")
    pitch = words[2] >> 7 & 0x3FFFFF
    if kind != 1 or words[5] >> 17 != 1 or pitch % 64 or pitch < width * texel:
        raise BadStream(f"an image of kind {kind}, depth {words[5] >> 17}, pitch {pitch}")
    if (words[3] & 0x7FFFFF) * 4096 < pitch * height:
        raise BadStream("a layer is smaller than the image")
    return View(base, width, height, pitch, texel, swizzle, "image")
