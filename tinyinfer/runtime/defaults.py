"""Settings of the whole process: how much is logged, and the seed of random ops."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("tinyinfer")

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_SEED: int | None = None


def logging_level(severity: int) -> int:
    """Python's logging level for onnxruntime's severity: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal.

    ValueError for any other number.
    """
    if not 0 <= severity < len(_LEVELS):
        raise ValueError(f"a log severity is 0 (verbose) to 4 (fatal), not {severity}")
    return _LEVELS[severity]


def set_default_logger_severity(severity: int) -> None:
    """Log what is at least this severe (0 verbose … 4 fatal) in sessions that set no level of their own."""
    LOGGER.setLevel(logging_level(severity))


def session_logger(logid: str, severity: int) -> logging.Logger:
    """The logger of one session: the process's own, or one of its own level where `severity` is not negative.

    Its records pass through the process's handlers. No table of loggers has it: it goes with its session.
    """
    if severity < 0 and not logid:
        return LOGGER
    level = logging.NOTSET if severity < 0 else logging_level(severity)
    logger = logging.Logger(f"{LOGGER.name}.{logid}" if logid else LOGGER.name, level)
    logger.parent = LOGGER
    return logger


def set_seed(seed: int) -> None:
    """Set the seed of sessions made from now on, for ops that draw random numbers and name none."""
    global _SEED
    _SEED = int(seed)


def default_seed() -> int | None:
    """What `set_seed` was given last, or None."""
    return _SEED
