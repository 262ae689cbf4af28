"""Statistics and loops as they are read from the compiler's log."""

import json

import pytest

from tinyinfer.backends.qcom.statistics import CompiledKernel, parse_log, parse_loops

VARIANT = """MESA: info: Native code for unnamed CL shader (null) with blake3 feadb:
MESA: info: @in(r0.x)\tin1 (wrmask=0x7)
MESA: info: mov.f32f32 r0.w, c4.x
MESA: info: l2:
MESA: info: (nop3) cmps.s.ge p0.x, r2.y, c1.x
MESA: info: (rpt2)nop
MESA: info: br p0.x, #l20
MESA: info: isam.1d (f16)(xyzw)hr13.z, r1.w, s#0, t#1
MESA: info: l7:
MESA: info: (sy)(rpt3)mad.f16 hr1.x, (r)hr2.x, hr3.x, (r)hr1.x
MESA: info: stp.u16 p[r24.z+6], r14.w, 1
MESA: info: br p0.y, #l7
MESA: info: (nop1) mad.f32 r12.w, r2.x, r10.w, r12.w
MESA: info: jump #l2
MESA: info: l20:
MESA: info: ldp.u16 r14.w, p[r24.z+6], 1
MESA: info: end
MESA: info: ; CL prog 1/1: 220 instr, 29 nops, 191 non-nops, 26 mov, 48 cov, 384 dwords
MESA: info: ; CL prog 1/1: 0 last-baryf, 0 last-helper, 3 half, 13 full, 8 constlen
MESA: info: ; CL prog 1/1: 32 cat0, 74 cat1, 54 cat2, 48 cat3, 2 cat4, 8 cat5, 4 cat6, 0 cat7
MESA: info: ; CL prog 1/1: 0 sstall, 3 (ss), 39 systall, 1 (sy), 1 loops
MESA: info: ; CL prog 1/1: 14 max_waves, 1 double_threadsize
"""


def test_statistics_are_those_of_the_last_variant():
    statistics, listing = parse_log(VARIANT.replace("220 instr", "999 instr") + VARIANT)
    assert statistics.instructions == 220
    assert (statistics.nops, statistics.moves, statistics.conversions) == (29, 26, 48)
    assert (statistics.half_registers, statistics.full_registers, statistics.constants) == (3, 13, 8)
    assert (statistics.arithmetic, statistics.special) == (102, 2)
    assert (statistics.texture_reads, statistics.memory, statistics.loops) == (8, 4, 1)
    assert (statistics.waves, statistics.double_wave) == (14, True)
    assert (statistics.private_stores, statistics.private_loads, statistics.spills) == (1, 1, True)
    assert listing.startswith("Native code") and "MESA" not in listing


def test_loops_nest_and_count_issue_slots():
    outer, inner = parse_loops(parse_log(VARIANT)[1])
    assert (outer.depth, inner.depth) == (0, 1)
    # cmps with three nops, a nop repeated twice, br, isam, mad with a nop, jump
    assert outer.instructions == 4 + 3 + 1 + 1 + 2 + 1
    assert (outer.texture_reads, outer.multiply_adds, outer.waits) == (1, 1, 0)
    assert inner.instructions == 4 + 1 + 1
    assert (inner.texture_reads, inner.multiply_adds, inner.waits) == (0, 4, 1)


@pytest.mark.parametrize(
    "log, message",
    [("", "no machine code"), ("Native code for x\nend\n", "does not say: instr, full, half, max_waves")],
)
def test_a_log_without_statistics_is_refused(log, message):
    with pytest.raises(ValueError, match=message):
        parse_log(log)


def test_a_compiled_kernel_survives_json():
    statistics, listing = parse_log(VARIANT)
    kernel = CompiledKernel("k", "a630", statistics, parse_loops(listing), 945, 16, 32, listing)
    assert CompiledKernel.from_json(json.loads(json.dumps(kernel.to_json()))) == kernel
