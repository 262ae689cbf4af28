"""A kernel that writes the fill value into the halo of a buffer, leaving its inside alone."""

from __future__ import annotations

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.kernel import WRITTEN, function
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.kernels.halo import HaloRegion


def print_halo(
    name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool, dialect: Dialect
) -> str:
    """The function `name`: its only argument is the buffer."""
    last = max(
        (r.start + r.length + sum((count - 1) * stride for count, stride in r.loops) for r in regions),
        default=0,
    )
    w = Writer(dialect.index if last < 1 << 31 else dialect.wide_index)
    value = dialect.types[dtype].store.format(dialect.literal(fill, dtype))

    def runs(region: HaloRegion, left: tuple[tuple[int, int], ...], terms: list[str]) -> None:
        if left:
            count, stride = left[0]
            with w.loop(f"i{len(terms)}", count) as counter:
                runs(region, left[1:], [*terms, counter if stride == 1 else f"{stride} * {counter}"])
            return
        start = [str(region.start)] if region.start else []
        if region.length == 1:
            w.do(f"{WRITTEN}[{' + '.join([*terms, *start]) or '0'}] = {value};")
            return
        with w.loop("i", region.length) as counter:
            w.do(f"{WRITTEN}[{' + '.join([*terms, counter, *start])}] = {value};")

    for region in regions:
        runs(region, region.loops, [])
    return function(dialect, name, (dtype,), w)
