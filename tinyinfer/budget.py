"""What one import, compilation or run may spend, of time, memory and trips of a loop.

The budget in force belongs to a thread and is looked up where things are spent, so that no compiler pass
takes a parameter for it. `limits.Limits` says what a session's budget is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tinyinfer.errors import Fail, RuntimeException


@dataclass(frozen=True)
class Budget:
    """`deadline` is in seconds of `time.monotonic`; None: no limit."""

    deadline: float | None = None
    seconds: float = 0
    max_bytes: int | None = None
    loop_trips: int = 10_000_000


class TooManyTrips(RuntimeException):
    """A loop made more trips than it may."""


class _State(threading.local):
    budget = Budget()
    spent: float | None = None
    """Seconds that the run in progress has spent on importing and compiling."""


_STATE = _State()


def current() -> Budget:
    """The budget in force on this thread."""
    return _STATE.budget


@contextmanager
def spending(seconds: float, max_bytes: int, loop_trips: int) -> Iterator[None]:
    """A budget that starts now. A deadline that is in force already stays where it is."""
    before = _STATE.budget
    start = time.monotonic()
    outermost = before.deadline is None
    deadline = start + seconds - (_STATE.spent or 0) if before.deadline is None else before.deadline
    _STATE.budget = Budget(deadline, before.seconds or seconds, max_bytes, loop_trips)
    try:
        check_time()
        yield
    except RecursionError:
        raise Fail(
            "the model computes something that is nested too deeply to import or compile, such as a chain of "
            "thousands of operators without a reduction between them"
        ) from None
    finally:
        _STATE.budget = before
        if outermost and _STATE.spent is not None:
            _STATE.spent += time.monotonic() - start


@contextmanager
def one_run() -> Iterator[None]:
    """Imports and compilations in here share the seconds of one."""
    outermost = _STATE.spent is None
    if outermost:
        _STATE.spent = 0.0
    try:
        yield
    finally:
        if outermost:
            _STATE.spent = None


@contextmanager
def fewer_trips(trips: int) -> Iterator[None]:
    """Loops make at most `trips` trips in here."""
    before = _STATE.budget
    _STATE.budget = replace(before, loop_trips=min(trips, before.loop_trips))
    try:
        yield
    finally:
        _STATE.budget = before


def check_time() -> None:
    """Fail where the time is up."""
    budget = _STATE.budget
    if budget.deadline is not None and time.monotonic() > budget.deadline:
        raise Fail(
            f"importing or compiling takes longer than the limit compile_seconds = {budget.seconds:g} "
            "(tinyinfer.Limits)"
        )


def check_bytes(size: int, what: str) -> None:
    """Fail where `what` takes more bytes than it may."""
    most = _STATE.budget.max_bytes
    if most is not None and size > most:
        raise Fail(f"{what} takes {size} bytes, over the limit max_bytes = {most} (tinyinfer.Limits)")


def check_trips(trips: int, what: str = "a loop") -> None:
    """TooManyTrips where a loop is about to make a trip after `trips` ones and may not."""
    most = _STATE.budget.loop_trips
    if trips >= most:
        raise TooManyTrips(f"{what} made {trips} trips, the limit loop_trips = {most} (tinyinfer.Limits)")
