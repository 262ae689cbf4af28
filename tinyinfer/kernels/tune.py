"""The autotuner: from the heuristic schedule of each contraction to better neighbours, as measured.

A device hands in a `Measure`; all else is common. The search changes one decision at a time, and a schedule
takes another's place only where it is faster by more than `MARGIN`; what was found must beat the heuristic
schedule once more at the end, because the best of several noisy times is better than it will be again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.access import payloads, walk_with_indices
from tinyinfer.kernels.assign import LoopKernel, assign
from tinyinfer.kernels.physical import to_physical
from tinyinfer.kernels.schedule import ContractionSchedule, MachineModel
from tinyinfer.kernels.schedule_space import ContractionChoice, schedule_fields
from tinyinfer.kernels.tuning import Tuning

MARGIN = 0.03
"""Part of its time by which a schedule must be faster to take another one's place."""

Measure = Callable[[ContractionChoice, Sequence[ContractionSchedule]], list[float]]
"""Seconds of one contraction with each of some schedules, comparable with each other."""

Progress = Callable[[int, int], None]
"""Called with the number of kernels that are tuned, and of all that are to be."""


def tune_contractions(
    graph: Graph,
    machine: MachineModel,
    options: CompileOptions,
    measure: Measure,
    name: str = "",
    seconds: float = float("inf"),
    progress: Progress = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Tuning, int]:
    """Schedules for the contractions of a graph whose passes have run, those with most work first, as far as
    `seconds` reach, and the number of those that were not reached. What `options.tuning` has for a kernel
    stays. `name` is the processor that measures."""
    end = clock() + seconds
    choices = find_contractions(graph, machine, options)
    found = _known(choices, options.tuning)
    wanted = [key for key in choices if key not in found]
    wanted.sort(key=lambda key: (-choices[key][0].work * choices[key][1], key))
    done = 0
    for done, key in enumerate(wanted):
        if clock() >= end:
            break
        progress(done, len(wanted))
        found[key] = schedule_fields(search(choices[key][0], measure, lambda: clock() >= end))
    else:
        done = len(wanted)
    return Tuning.make(name if done else options.tuning.machine, found), len(wanted) - done


def known_schedules(graph: Graph, machine: MachineModel, options: CompileOptions) -> Tuning:
    """The part of `options.tuning` that contractions of a graph whose passes have run would take."""
    choices = find_contractions(graph, machine, options) if options.tuning else {}
    return Tuning.make(options.tuning.machine, _known(choices, options.tuning))


def _known(
    choices: Mapping[str, tuple[ContractionChoice, int]], tuning: Tuning
) -> dict[str, Mapping[str, int]]:
    found = {}
    for key, (choice, _) in choices.items():
        fields = tuning.get(key)
        if fields is not None and choice.find(fields) is not None:
            found[key] = fields
    return found


def find_contractions(
    graph: Graph, machine: MachineModel, options: CompileOptions
) -> dict[str, tuple[ContractionChoice, int]]:
    """The distinct contractions of a graph's plan that can be measured, by key, and how often each occurs."""
    found: dict[str, tuple[ContractionChoice, int]] = {}
    assigned = assign(graph, options.fuse)
    for buffer in assigned.buffers.values():
        buffer.place()
    for lowered, roles in zip(assigned.kernels, assigned.contractions):
        if isinstance(lowered, LoopKernel):
            made = find_contractions(lowered.root.attrs.graph, machine, options)
        elif roles is not None and lowered.root.size:
            choice = ContractionChoice(to_physical(lowered, assigned.buffers), roles, machine)
            # synthetic data would send an indexed read anywhere
            indexed = any(payloads(e) for e in walk_with_indices(choice.physical.nest.body))
            made = {} if indexed else {choice.key: (choice, 1)}
        else:
            continue
        for key, (choice, count) in made.items():
            have = found.get(key, (choice, 0))
            found[key] = (have[0], have[1] + count)
    return found


def search(
    choice: ContractionChoice, measure: Measure, expired: Callable[[], bool] = lambda: False
) -> ContractionSchedule:
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
