"""What the ir3 compiler says of a kernel, read from its log."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

_STATISTICS = re.compile(r"; CL prog \d+/\d+: (.*)")
_QUANTITY = re.compile(r"(\d+) ([\w()\-]+)")
_LABEL = re.compile(r"(l\d+):$")
_JUMP = re.compile(r"(?:jump|br\w*|bany|ball|getone)\b.*#(l\d+)$")
_REPEAT = re.compile(r"\(rpt(\d+)\)")
_NOPS = re.compile(r"\(nop(\d+)\)")
_PREFIX = "MESA: info: "
_MULTIPLY_ADD = re.compile(r"\b(?:mad|fma)\.f(?:16|32)\b")
_PRIVATE_STORE = re.compile(r"\bstp\.")
_PRIVATE_LOAD = re.compile(r"\bldp\.")
_TEXTURE_READ = re.compile(r"\b(?:isam\w*|sam\w*|gather\w*)[. ]")


@dataclass(frozen=True)
class CompilerStatistics:
    """One compiled kernel. Registers are vectors of four 32-bit components, as the compiler allocates them.

    `instructions` counts issue slots: repeats and nops included, a loop's body once.
    """

    instructions: int
    nops: int
    moves: int
    conversions: int
    half_registers: int
    full_registers: int
    constants: int
    """Vectors of the constant file, kernel arguments included."""

    arithmetic: int
    """Instructions of the two arithmetic categories."""

    special: int
    """Reciprocals, square roots, exponentials, logarithms."""

    multiply_adds: int
    """Scalar multiply-adds of one work-item, a loop's body once."""

    texture_reads: int
    memory: int
    """Loads and stores of global, local and private memory, image stores."""

    private_stores: int
    private_loads: int
    loops: int
    waves: int
    """Waves that one shader processor holds at a time: the compiler's own number."""

    double_wave: bool
    """Whether a wave has twice the basic number of work-items."""

    @property
    def spills(self) -> bool:
        """Whether values went to private memory: registers ran out, or an array is indexed by a variable."""
        return self.private_stores > 0 or self.private_loads > 0


@dataclass(frozen=True)
class LoopStatistics:
    """The body of one loop of the machine code; what inner loops hold is not counted again here."""

    depth: int
    """0 for a loop that is in no other."""

    instructions: int
    """Issue slots of one trip, repeats and nops included."""

    texture_reads: int
    multiply_adds: int
    """Scalar multiply-adds of one work-item in one trip."""

    waits: int
    """Places where a trip waits for memory or textures: `(sy)`."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel that compiled for one GPU."""

    name: str
    gpu: str
    statistics: CompilerStatistics
    loops: tuple[LoopStatistics, ...]
    """In order of the code."""

    max_work_group: int
    """Work-items of the largest work-group that the driver would launch with these registers."""

    local_bytes: int
    private_bytes: int
    listing: str
    """The machine code as text."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CompiledKernel:
        """The inverse of `to_json`."""
        loops = tuple(LoopStatistics(**loop) for loop in data["loops"])
        return cls(**{**data, "statistics": CompilerStatistics(**data["statistics"]), "loops": loops})


def parse_log(log: str) -> tuple[CompilerStatistics, str]:
    """Statistics and listing of the last variant in the compiler's log; ValueError if it holds none.

    The driver compiles a variant that adds global offsets, then, where they are used, one that is launched
    without them. The latter is the one that runs.
    """
    lines = [line.removeprefix(_PREFIX) for line in log.splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith("Native code for")]
    if not starts:
        raise ValueError("the compiler's log holds no machine code")
    listing = lines[starts[-1] :]
    found: dict[str, int] = {}
    for line in listing:
        match = _STATISTICS.match(line)
        if match:
            found.update((what, int(count)) for count, what in _QUANTITY.findall(match[1]))
    missing = [name for name in ("instr", "full", "half", "max_waves") if name not in found]
    if missing:
        raise ValueError(f"the compiler's log does not say: {', '.join(missing)}")
    statistics = CompilerStatistics(
        instructions=found["instr"],
        nops=found.get("nops", 0),
        moves=found.get("mov", 0),
        conversions=found.get("cov", 0),
        half_registers=found["half"],
        full_registers=found["full"],
        constants=found.get("constlen", 0),
        arithmetic=found.get("cat2", 0) + found.get("cat3", 0),
        special=found.get("cat4", 0),
        multiply_adds=sum(_times(line) for line in listing if _MULTIPLY_ADD.search(line)),
        texture_reads=found.get("cat5", 0),
        memory=found.get("cat6", 0),
        private_stores=sum(bool(_PRIVATE_STORE.search(line)) for line in listing),
        private_loads=sum(bool(_PRIVATE_LOAD.search(line)) for line in listing),
        loops=found.get("loops", 0),
        waves=found["max_waves"],
        double_wave=bool(found.get("double_threadsize", 0)),
    )
    return statistics, "\n".join(listing)


def parse_loops(listing: str) -> tuple[LoopStatistics, ...]:
    """The loops of a listing: each backward jump closes the lines since its label."""
    lines = [line.strip() for line in listing.splitlines()]
    labels = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    ends: dict[int, int] = {}
    for i, line in enumerate(lines):
        match = _JUMP.search(line)
        if match and labels.get(match[1], i) < i:
            ends[labels[match[1]]] = i
    spans = sorted(ends.items())
    loops = []
    for start, end in spans:
        inside = [span for span in spans if start < span[0] and span[1] < end]
        body = [
            line
            for i, line in enumerate(lines[start + 1 : end + 1], start + 1)
            if not any(first <= i <= last for first, last in inside)
        ]
        loops.append(_loop(body, sum(span[0] < start and end < span[1] for span in spans)))
    return tuple(loops)


def _loop(body: list[str], depth: int) -> LoopStatistics:
    instructions = texture_reads = multiply_adds = waits = 0
    for line in body:
        if not line or _LABEL.match(line):
            continue
        times = _times(line)
        nops = _NOPS.search(line)
        instructions += times + (int(nops[1]) if nops else 0)
        waits += "(sy)" in line
        texture_reads += bool(_TEXTURE_READ.search(line))
        multiply_adds += times if _MULTIPLY_ADD.search(line) else 0
    return LoopStatistics(depth, instructions, texture_reads, multiply_adds, waits)


def _times(line: str) -> int:
    """How often a line's instruction is issued."""
    repeat = _REPEAT.search(line)
    return 1 + (int(repeat[1]) if repeat else 0)
