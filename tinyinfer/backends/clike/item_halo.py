"""A kernel of work-items that writes the fill value into the halo of a buffer: one element each."""

from __future__ import annotations

from tinyinfer.backends.clike.arithmetic import Value
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.items import item_function
from tinyinfer.backends.clike.kernel import WRITTEN
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.image import PITCH, TEXEL
from tinyinfer.kernels.schedule_gpu import GpuModel, elements_of, halo_elements, linear_work


def print_item_halo(
    name: str,
    regions: tuple[HaloRegion, ...],
    dtype: str,
    fill: float | int | bool,
    dialect: Dialect,
    model: GpuModel,
) -> str:
    """The kernel `name`: its only argument is the buffer."""
    last = max(
        (r.start + r.length + sum((count - 1) * stride for count, stride in r.loops) for r in regions),
        default=0,
    )
    w = Writer(dialect.index if last < 1 << 31 else dialect.wide_index)
    work = linear_work(halo_elements(regions), model)
    w.do(f"{w.index} i = ({w.index})get_global_id(0);")
    w.do(f"{w.index} place = -1;")
    for region in regions:
        count = elements_of(region)
        with w.block(f"if (i >= 0 && i < {count})"):
            unit = TEXEL if region.image else 1
            below = region.length // unit
            terms = [f"i % {below}"] + ([str(region.start // unit)] if region.start else [])
            for number, (size, stride) in enumerate(reversed(region.loops)):
                outermost = number == len(region.loops) - 1
                terms.append(f"i / {below}{'' if outermost else f' % {size}'} * {stride // unit}")
                below *= size
            w.do(f"place = {' + '.join(terms)};")
        w.do(f"i -= {count};")
    kind, value = dialect.types[dtype], Value(dialect.literal(fill, dtype), dtype)
    in_image = any(region.image for region in regions)
    with w.block("if (place >= 0)"):
        if in_image:
            row = PITCH // TEXEL
            w.do(f"write_imagef({WRITTEN}, (int2)(place % {row}, place / {row}), (float4)({value.text}));")
        elif kind.converted:
            w.do(f"vstore_{kind.memory}_rte({value.text}, place, {WRITTEN});")
        else:
            w.do(f"{WRITTEN}[place] = {kind.store.format(value.text)};")
    return item_function(dialect, name, (dtype,), work, w, (in_image,))
