"""The autotuner: from the heuristic schedule of each kernel to better neighbours, as measured.

A device hands in a `Measure`; all else is common. The search changes one decision at a time, and a schedule
takes another's place only where it is faster by more than `MARGIN`; what was found must beat the heuristic
schedule once more at the end, because the best of several noisy times is better than it will be again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.kernels import plan
from tinyinfer.kernels.access import payloads, walk_with_indices
from tinyinfer.kernels.assign import LoopKernel, assign
from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.image import ImageLimits
from tinyinfer.kernels.physical import PhysicalKernel, to_physical
from tinyinfer.kernels.plan import place_values
from tinyinfer.kernels.tuning import Tuning

MARGIN = 0.03
"""Part of its time by which a schedule must be faster to take another one's place."""


class Choice(Protocol):
    """A kernel whose schedule is to be chosen; what its schedules are is its own matter."""

    @property
    def key(self) -> str: ...

    @property
    def cycles(self) -> float: ...

    def heuristic(self) -> Any: ...

    def find(self, recorded: Mapping[str, int]) -> Any: ...

    def fields(self, s: Any) -> dict[str, int]: ...

    def steps(self) -> list[str]: ...

    def neighbours(self, s: Any, step: str) -> list[Any]: ...


class ContractionChoice(Choice, plan.Choice, Protocol):
    """A contraction whose schedule is to be chosen."""


class Machine(plan.Machine, Protocol):
    """A kind of device whose kernels can be tuned."""

    def choice(self, physical: PhysicalKernel, roles: Contraction) -> ContractionChoice: ...

    def map_choice(self, physical: PhysicalKernel) -> Choice | None:
        """A map kernel whose schedule is to be chosen; None where there is nothing to choose."""


Measure = Callable[[Any, Sequence[Any]], list[float]]
"""Seconds of the kernel of a Choice with each of some schedules, comparable with each other."""

Progress = Callable[[int, int], None]
"""Called with the number of kernels that are tuned, and of all that are to be."""


def tune_kernels(
    graph: Graph,
    machine: Machine,
    options: CompileOptions,
    measure: Measure,
    name: str = "",
    seconds: float = float("inf"),
    progress: Progress = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Tuning, int]:
    """Schedules for the kernels of a graph whose passes have run, those that take longest first, as far as
    `seconds` reach, and the number of those that were not reached. What `options.tuning` has for a kernel
    stays. `name` is the processor that measures."""
    end = clock() + seconds
    choices = find_choices(graph, machine, options)
    found = _known(choices, options.tuning)
    wanted = [key for key in choices if key not in found]
    wanted.sort(key=lambda key: (-choices[key][0].cycles * choices[key][1], key))
    done = 0
    for done, key in enumerate(wanted):
        if clock() >= end:
            break
        progress(done, len(wanted))
        choice = choices[key][0]
        found[key] = choice.fields(search(choice, measure, lambda: clock() >= end))
    else:
        done = len(wanted)
    return Tuning.make(name if done else options.tuning.machine, found), len(wanted) - done


def known_schedules(graph: Graph, machine: Machine, options: CompileOptions) -> Tuning:
    """The part of `options.tuning` that kernels of a graph whose passes have run would take."""
    choices = find_choices(graph, machine, options) if options.tuning else {}
    return Tuning.make(options.tuning.machine, _known(choices, options.tuning))


def _known(choices: Mapping[str, tuple[Choice, int]], tuning: Tuning) -> dict[str, Mapping[str, int]]:
    found = {}
    for key, (choice, _) in choices.items():
        fields = tuning.get(key)
        if fields is not None and choice.find(fields) is not None:
            found[key] = fields
    return found


def find_choices(graph: Graph, machine: Machine, options: CompileOptions) -> dict[str, tuple[Choice, int]]:
    """The distinct contractions and map kernels of a graph's plan that can be measured, by key, and how often
    each occurs."""
    return _find_choices(graph, machine, options, machine.images)


def _find_choices(
    graph: Graph, machine: Machine, options: CompileOptions, images: ImageLimits | None
) -> dict[str, tuple[Choice, int]]:
    found: dict[str, tuple[Choice, int]] = {}
    assigned = assign(graph, options.fuse, images is not None)
    place_values(assigned, machine, images, options.tuning)
    for lowered, roles in zip(assigned.kernels, assigned.contractions):
        if isinstance(lowered, LoopKernel):
            made = _find_choices(lowered.root.attrs.graph, machine, options, None)
        elif lowered.root.size and lowered.root.op != "SCATTER":
            made = _measurable(to_physical(lowered, assigned.buffers), roles, machine)
        else:
            continue
        for key, (choice, count) in made.items():
            have = found.get(key, (choice, 0))
            found[key] = (have[0], have[1] + count)
    return found


def _measurable(
    physical: PhysicalKernel, roles: Contraction | None, machine: Machine
) -> dict[str, tuple[Choice, int]]:
    """The kernel's choice if there is any, and if it can be measured: synthetic data would send an indexed
    read anywhere."""
    if any(payloads(e) for e in walk_with_indices(physical.nest.body)):
        return {}
    choice = machine.choice(physical, roles) if roles is not None else machine.map_choice(physical)
    return {choice.key: (choice, 1)} if choice is not None else {}


def search(choice: Choice, measure: Measure, expired: Callable[[], bool] = lambda: False) -> Any:
    """The best schedule that is found by changing one decision after the other, starting from the heuristic;
    the heuristic one where time is out before another has proven itself."""
    first = best = choice.heuristic()
    for step in choice.steps():
        others = choice.neighbours(best, step)
        if not others or expired():
            continue
        seconds = measure(choice, [best, *others])
        fastest = min(range(len(seconds)), key=seconds.__getitem__)
        if fastest and seconds[fastest] < (1 - MARGIN) * seconds[0]:
            best = others[fastest - 1]
    if best != first:
        before, after = measure(choice, [first, best])
        if after >= (1 - MARGIN) * before:
            return first
    return best
