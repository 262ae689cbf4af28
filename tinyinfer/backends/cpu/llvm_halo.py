"""A kernel that writes the fill value into the halo of a buffer, leaving its inside alone."""

from __future__ import annotations

from tinyinfer.backends.cpu.llvm_writer import ITEM_BYTES, Writer, literal, memory_type
from tinyinfer.kernels.halo import HaloRegion


def print_halo(
    name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool, lanes: int
) -> str:
    """LLVM text of `name`: argument 0 is the buffer, one chunk writes everything."""
    w = Writer(lanes)
    kind, size = memory_type(dtype), ITEM_BYTES[dtype]
    value = literal(fill, dtype) if dtype != "bool" else str(int(bool(fill)))
    buffer = w.emit("load ptr, ptr %arguments")

    def runs(base: str | None, region: HaloRegion, left: tuple[tuple[int, int], ...]) -> None:
        if left:
            (count, stride), rest = left[0], left[1:]
            with w.loop(0, count) as counter:
                moved = w.emit(f"mul nuw nsw i64 {counter}, {stride}")
                runs(moved if base is None else w.emit(f"add nuw nsw i64 {base}, {moved}"), region, rest)
            return
        start = str(region.start) if base is None else w.emit(f"add nuw nsw i64 {base}, {region.start}")
        whole = region.length // lanes * lanes
        pointer = w.emit(f"getelementptr {kind}, ptr {buffer}, i64 {start}")
        if whole:
            with w.loop(0, whole, lanes) as counter:
                place = w.emit(f"getelementptr {kind}, ptr {pointer}, i64 {counter}")
                w.do(f"store <{lanes} x {kind}> splat ({kind} {value}), ptr {place}, align {size}")
        for i in range(whole, region.length):
            place = w.emit(f"getelementptr {kind}, ptr {pointer}, i64 {i}")
            w.do(f"store {kind} {value}, ptr {place}, align {size}")

    for region in regions:
        runs(None, region, region.loops)
    return w.function(f"define void @{name}(ptr %arguments, i64 %chunk) #0")
