"""A small bundle written straight from docs/bundle.md, without the package's own writer: kernels compiled
from C, raw and expanded tensors, a loop in a loop, an input of one value, golden vectors.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ARCHITECTURES = {"x86_64": (1, 8), "aarch64": (2, 8), "armv7": (3, 4), "riscv64": (4, 8), "wasm32": (5, 4)}
KERNELS = ("scale", "step", "count")
ROWS, COLUMNS = 8, 16
FLOAT32, UINT8, INT32, INT64 = 1, 2, 6, 7
ELSEWHERE = 2

W = np.arange(16, dtype=np.uint8) + 120
B = np.linspace(-1, 1, 16, dtype=np.float32)


@dataclass(frozen=True)
class Section:
    kind: str
    data: bytes
    group: int = 0
    name: str = ""
    flags: int = 1


def bundle(sections: Sequence[Section]) -> bytes:
    """The file of these sections, hashed."""
    position = 64 + 96 * len(sections)
    table, body = b"", b""
    for s in sections:
        align = 16384 if s.kind in ("CODE", "WGHT") else 64
        elsewhere = s.flags & ELSEWHERE
        offset = 0 if elsewhere else -(-position // align) * align
        if not elsewhere:
            body += bytes(offset - position) + s.data
            position = offset + len(s.data)
        table += struct.pack("<4sIQQII", s.kind.encode(), s.flags, offset, len(s.data), s.group, 0)
        table += hashlib.sha256(s.data).digest() + s.name.encode().ljust(32, b"\0")
    head = b"\x89TINF\r\n\x1a" + struct.pack("<HHIQQ", 1, 0, len(sections), position, 0)
    return head + hashlib.sha256(head + table).digest() + table + body


def rehashed(data: bytes) -> bytes:
    """The bundle with the hashes of its sections and its table made right again."""
    changed = bytearray(data)
    count = struct.unpack_from("<I", data, 12)[0]
    for i in range(count):
        entry = 64 + 96 * i
        flags, offset, size = struct.unpack_from("<IQQ", data, entry + 4)
        if not flags & ELSEWHERE:
            changed[entry + 32 : entry + 64] = hashlib.sha256(changed[offset : offset + size]).digest()
    changed[32:64] = hashlib.sha256(changed[:32] + changed[64 : 64 + 96 * count]).digest()
    return bytes(changed)


def kernel_code(compiler: Sequence[str], folder: Path) -> tuple[bytes, dict[str, int]]:
    """Machine code of c/kernels.c for address 0, and where each kernel is."""
    linked, raw, script = (folder / f"kernels.{ending}" for ending in ("elf", "bin", "ld"))
    script.write_text("SECTIONS { .code 0 : { *(.text*) *(.rodata*) *(.srodata*) } }", encoding="ascii")
    flags = ["-O2", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-ffreestanding"]
    layout = ["-nostdlib", "-static", f"-Wl,-T,{script}", "-Wl,-e,0", "-Wl,--build-id=none"]
    if "arm-" in compiler[0]:
        flags.append("-marm")
    subprocess.run([*compiler, *flags, *layout, str(HERE / "c" / "kernels.c"), "-o", str(linked)], check=True)
    prefix = compiler[0].removesuffix("gcc")
    subprocess.run([f"{prefix}objcopy", "-O", "binary", "-j", ".code", str(linked), str(raw)], check=True)
    listing = subprocess.run([f"{prefix}nm", str(linked)], check=True, capture_output=True, text=True).stdout
    places = {line.split()[-1]: int(line.split()[0], 16) for line in listing.splitlines()}
    return raw.read_bytes(), {name: places[name] for name in KERNELS}


def plan(architecture: str, offsets: dict[str, int], features: int = 0) -> bytes:
    """The plan: arena[0:512] = x * w; then a loop over its rows with one inside, its scratch at 512."""
    text = b""

    def string(value: str) -> tuple[int, int]:
        nonlocal text
        start = len(text)
        text += value.encode()
        return start, len(value)

    arena = lambda at, even=0, odd=0: (1, 0, at, even, odd)  # noqa: E731
    nowhere, row = (0, 0, 0, 0, 0), 4 * COLUMNS
    references: list[tuple[int, int, int, int, int]] = []

    def refs(*items: tuple[int, int, int, int, int]) -> int:
        references.extend(items)
        return len(references) - len(items)

    # in the outer loop: places 0 state, 1 row; outputs 0 next state, 1 row of y
    counted = refs((4, 0, 0, 0, 0), (2, 1, 0, 0, 0))
    stepped = refs((4, 0, 0, 0, 0), (4, 1, 0, 0, 0), (3, 0, 0, 0, 0), (3, 1, 0, 0, 0))
    scaled = refs(arena(0), (3, 0, 0, 0, 0), (2, 0, 0, 0, 0))
    launch = "<IIIIQIIIIQQQ"
    launches = [
        struct.pack(launch, 2, counted, 2, 0, 2, 0, 0, *string("count"), 0, 0, 0),
        struct.pack(launch, 1, stepped, 4, 1, 1, 0, 0, *string("step"), 0, 0, 0),
        struct.pack(launch, 0, 0, 0, 1, 1, 2, 0, *string("inner loop"), 0, 0, 0),
        struct.pack(launch, 0, scaled, 3, 0, ROWS, 0, 0, *string("scale"), 0, 0, 0),
        struct.pack(launch, 0, 0, 0, 1, 1, 1, 0, *string("outer loop"), 0, 0, 0),
    ]

    def loop(first, launches, steps, arena, inputs, outputs, iteration, before, after, done):
        lists = [(refs(*items), len(items)) for items in (inputs, outputs)]
        at = refs(iteration)
        lists2 = [(refs(*items), len(items) // 2) for items in (before, after)]
        ends = [refs(item) for item in (nowhere, nowhere, nowhere, done)]
        numbers = [refs(arena), *lists[0], *lists[1], at, 0, 0, *lists2[0], *lists2[1], *ends]
        return struct.pack("<IIQ16I16x", first, launches, steps, *numbers)

    state = [arena(512, 64, -64), arena(576, -64, 64)]
    loops = [
        loop(1, 2, ROWS, arena(704), [state[0], arena(0, row, row)], [state[1], (4, 0, 0, row, row)],
             arena(640), [(1, 0, 512, 0, 64), (2, 2, 0, 0, 0)], [(4, 1, 0, 0, 64), (1, 0, 512, 64, -64)],
             (4, 2, 0, 0, 0)),
        loop(0, 1, 2, arena(0), [], [(4, 0, 0, 0, 0)], arena(64), [], [], nowhere),
    ]  # fmt: skip
    dims = struct.pack("<qqqqqq", ROWS, COLUMNS, 1, ROWS, COLUMNS, COLUMNS)
    value = "<IIIIIIQI12x"
    values = [
        struct.pack(value, *string("x"), FLOAT32, 2, 0, 0, 512, 0),
        struct.pack(value, *string("mode"), INT32, 1, 2, 0, 4, 4),
        struct.pack(value, *string("y"), FLOAT32, 2, 3, 1, 512, 0),
        struct.pack(value, *string("state"), FLOAT32, 1, 5, 1, 64, 0),
        struct.pack(value, *string("n"), INT64, 0, 0, 1, 8, 0),
    ]
    tensor = "<IIQIIqII16x"
    tensors = [
        struct.pack(tensor, 0, 1, 80, FLOAT32, UINT8, -128, 0, 1),
        struct.pack(tensor, 1, 0, 64, FLOAT32, FLOAT32, 0, 0, 0),
        struct.pack(tensor, 3, 0, 64, FLOAT32, FLOAT32, 0, 0, 0),
        struct.pack(tensor, 2, 0, 4, INT32, INT32, 0, 0, 0),
    ]
    kernels = [struct.pack("<QII", offsets[name], *string(name)) for name in KERNELS]
    packed = [struct.pack("<IIQqq", *r) for r in references]
    runs = struct.pack("<QQQ", 8, 2, 2)
    sizes = (1, 8, 48, 56, 24, 16, 64, 32, 96)
    lists = (kernels, launches, packed, loops)
    tables = [text, dims, b"".join(values), b"".join(tensors), runs, *(b"".join(items) for items in lists)]
    number, pointer = ARCHITECTURES[architecture]
    header = struct.pack("<IIQQIII28x", number, pointer, features, 832, len(tables), 3, 2)
    directory, body = b"", b""
    for size, data in zip(sizes, tables, strict=True):
        start = 64 + 16 * len(tables) + len(body)
        directory += struct.pack("<IIII", start, len(data) // size, size, 0)
        body += data + bytes(-len(data) % 8)
    return header + directory + body


def expected(x: np.ndarray) -> list[np.ndarray]:
    """What the model computes."""
    state, y = np.zeros(COLUMNS, np.float32), np.empty((ROWS, COLUMNS), np.float32)
    for t, row in enumerate(x * (W.astype(np.float32) - 128)):
        state = state + row
        y[t] = 2 * state
        for _ in range(2):
            state = state + (1 + B)
    return [y, state, np.array(ROWS, np.int64)]


def golden_hash(count: int, seed: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x735A2D97)
        return x ^ (x >> np.uint32(15))


def golden_floats(count: int, seed: int, low: float, high: float) -> np.ndarray:
    return low + (high - low) * (golden_hash(count, seed) >> np.uint32(8)).astype(np.float64) / 2**24


def golden() -> bytes:
    """One vector: `x` made from a seed, `mode` stored."""
    x = golden_floats(ROWS * COLUMNS, 7, -2.0, 3.0).astype(np.float32).reshape(ROWS, COLUMNS)
    outputs = expected(x)
    at = 16 + 48 * 5
    records = struct.pack("<IIddQQ8x", 1, 7, -2.0, 3.0, 0, 0)
    data = struct.pack("<i", 3) + bytes(4)
    records += struct.pack("<IIddQQ8x", 0, 0, 0.0, 0.0, at, 4)
    for output, (first, step) in zip(outputs, [(1, 3), (0, 1), (0, 1)]):
        kept = output.reshape(-1)[first::step]
        records += struct.pack("<QQQddQ", first, step, kept.size, 1e-4, 1e-5, at + len(data))
        data += kept.tobytes() + bytes(-kept.nbytes % 8)
    return struct.pack("<IIII", 1, 2, 3, 0) + records + data


def weights() -> tuple[bytes, bytes]:
    """The index of stored tensors and their bytes: w, b, mode's value, zeros for the state."""
    stored = [W.tobytes(), B.tobytes(), struct.pack("<i", 3), bytes(64)]
    index, data = b"", b""
    for item in stored:
        data += bytes(-len(data) % 64)
        index += hashlib.sha256(item).digest() + struct.pack("<QQ", len(data), len(item))
        data += item
    return index, data


def small_sections(targets: Sequence[tuple[str, str, bytes, bytes]], code_flags: int = 1) -> list[Section]:
    """Sections for targets (name, architecture, plan, code)."""
    index, data = weights()
    made = [Section("MANI", json.dumps({"inputs": []}, separators=(",", ":")).encode())]
    for group, (name, _, text, _) in enumerate(targets, 1):
        made.append(Section("PLAN", text, group, name))
    for group, (name, _, _, code) in enumerate(targets, 1):
        made.append(Section("CODE", code, group, name, code_flags))
    made += [Section("WIDX", index), Section("WGHT", data), Section("GOLD", golden())]
    return [*made, Section("PROV", b"{}", flags=0)]


def bundle_for_fuzzers() -> bytes:
    """For x86-64, with code that is held elsewhere: 256 bytes of instructions that return."""
    text = plan("x86_64", {"scale": 0, "step": 16, "count": 32})
    return bundle(small_sections([("x86_64-test", "x86_64", text, b"\xc3" * 256)], code_flags=1 | ELSEWHERE))


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(bundle_for_fuzzers())
