"""How many waves of a kernel a shader processor holds, and what that makes of its time.

The rule of `occupancy` is the compiler's own, checked against its statistics. `estimate` is a model for
choosing between candidates for the same work: its unit is a cycle of an ideal processor, and it promises an
order, no times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyinfer.backends.qcom.capabilities import AdrenoGpu
from tinyinfer.backends.qcom.statistics import CompiledKernel
from tinyinfer.backends.qcom.trips import issue_slots

READ_LATENCY = 300.0
"""Cycles from a texture or memory read to its value. An assumption: nobody measured it for this project."""

TEXELS = 4.0
"""Texels a cycle for each bank of a shader processor, whose arithmetic units are 64: tables of specifications
give one texture unit for sixteen of them (Adreno 650: 32 for 512). Not measured for this project."""

_SMALLEST_DOUBLE = 4
"""Waves of each bank that a kernel has to reach as double waves; with fewer it is compiled for single ones.
"""

_LOCAL_GRAIN = 1024


@dataclass(frozen=True)
class Occupancy:
    """What one shader processor holds of a kernel at a time."""

    waves: int
    wave_size: int
    """Work-items of a wave, double waves counted as such."""

    limit: str
    """What keeps it from more: "waves", "registers" or "local memory"."""

    fits: bool
    """Whether these waves hold a whole work-group, without which the kernel cannot be launched so."""

    @property
    def work_items(self) -> int:
        """Work-items in flight; unlike waves they compare across single and double ones."""
        return self.waves * self.wave_size


def occupancy(
    gpu: AdrenoGpu,
    full_registers: int,
    half_registers: int = 0,
    local_bytes: int = 0,
    work_group: int = 128,
    double_wave: bool | None = None,
) -> Occupancy:
    """Occupancy of a kernel that needs so many registers, and so much local memory for a work-group.

    Two half registers take one full one. `double_wave` says what the compiler chose. Without it, double waves
    are assumed for work-groups above a single wave unless that leaves fewer than four of each bank: so the
    compiler decides, but before it gives out registers, and a kernel of half vectors may end with more than
    it foresaw. ValueError for a work-group that the GPU cannot launch at all.
    """
    if not 0 < work_group <= gpu.max_work_group:
        raise ValueError(
            f"a work-group of {work_group}: {gpu.name} takes 1 to {gpu.max_work_group} work-items"
        )
    if local_bytes > gpu.local_bytes:
        raise ValueError(
            f"{local_bytes} bytes of local memory for a work-group: {gpu.name} has {gpu.local_bytes}"
        )
    registers = max(1, full_registers + -(-half_registers // 2))
    if double_wave is None:
        enough = gpu.registers // (2 * registers) >= _SMALLEST_DOUBLE
        double_wave = gpu.double_waves and work_group > gpu.wave_size and enough
    factor = 2 if double_wave else 1
    wave_size = gpu.wave_size * factor
    limits = {"waves": gpu.max_waves, "registers": gpu.registers // (factor * registers) * gpu.wave_banks}
    if local_bytes:
        groups = gpu.local_bytes // (-(-local_bytes // _LOCAL_GRAIN) * _LOCAL_GRAIN)
        limits["local memory"] = groups * -(-work_group // (wave_size * gpu.wave_banks)) * gpu.wave_banks
    limit = min(limits, key=lambda name: limits[name])
    waves = limits[limit]
    return Occupancy(waves, wave_size, limit, fits=waves * wave_size >= work_group)


@dataclass(frozen=True)
class Candidate:
    """A compiled kernel and how it would be launched."""

    kernel: CompiledKernel
    trips: tuple[int, ...]
    """For each of the kernel's loops, how often its body runs for one work-item."""

    work_items: int
    work_group: int


def estimate(
    gpu: AdrenoGpu, candidate: Candidate, latency: float = READ_LATENCY, texels: float = float("inf")
) -> float:
    """Cycles of the launch; infinite where it does not fit.

    Each bank of a shader processor issues for `wave_size` work-items a cycle, and reads `texels`. While a
    wave waits for what it reads the others issue, so a round of them takes as long as all their instructions,
    as all their reads, or as one wave with all its waits.
    """
    kernel, trips = candidate.kernel, candidate.trips
    if len(trips) != len(kernel.loops):
        raise ValueError(
            f"kernel {kernel.name} has {len(kernel.loops)} loops, {len(trips)} numbers of trips given"
        )
    held = occupancy(
        gpu,
        kernel.statistics.full_registers,
        kernel.statistics.half_registers,
        kernel.local_bytes,
        candidate.work_group,
        kernel.statistics.double_wave,
    )
    if not held.fits:
        return float("inf")
    issued = issue_slots(kernel, trips)
    waits = 1 + sum(loop.waits * n for loop, n in zip(kernel.loops, trips))
    issue = issued.slots * held.wave_size / gpu.wave_size
    busy = max(issue, issued.texture_reads * held.wave_size / texels)

    def cycles(waves: float) -> float:
        return max(waves * busy, issue + waits * latency) if waves else 0.0

    groups = -(-candidate.work_items // candidate.work_group)
    total = groups * -(-candidate.work_group // held.wave_size)
    a_bank = -(-total // (gpu.shader_processors * gpu.wave_banks))
    full, rest = divmod(a_bank, max(1, held.waves // gpu.wave_banks))
    return full * cycles(max(1, held.waves // gpu.wave_banks)) + cycles(rest)


def fastest(gpu: AdrenoGpu, candidates: Sequence[Candidate], latency: float = READ_LATENCY) -> Candidate:
    """The candidate of the smallest estimate; the first of equals. ValueError if none fits."""
    best = min(candidates, key=lambda candidate: estimate(gpu, candidate, latency))
    if estimate(gpu, best, latency) == float("inf"):
        raise ValueError(f"none of {len(candidates)} candidates fits {gpu.name}")
    return best
