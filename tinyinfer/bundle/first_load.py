"""The first load of a bundle on an OpenCL driver: golden vectors are replayed, and success is remembered.

What drivers make of a program differs, so that what was right on one says nothing of the next. What is
remembered is the bundle's content, its target, the device and the driver's version.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from tinyinfer.config import TRUST_VARIABLE, cache_directory, trust_drivers
from tinyinfer.errors import EPFail

if TYPE_CHECKING:
    from tinyinfer.bundle.load import BundleExecutable, BundleModel

FOLDER = "verified"
"""In the cache: an empty file for each success, named by a digest."""


def verify_first_load(
    model: BundleModel, executable: BundleExecutable, identity: str, logger: logging.Logger
) -> None:
    """Replay the golden vectors unless that was seen to pass before, or is not wanted. `identity` names
    device and driver. EPFail, naming the first kernel that is off, where an output is."""
    if trust_drivers():
        return
    parts = (model.container.signed_digest.hex(), model.target, identity)
    place = cache_directory() / FOLDER / hashlib.sha256("\0".join(parts).encode()).hexdigest()
    if place.exists():
        return
    vectors = model.golden()
    if not vectors:
        logger.warning("%s has no golden vectors: what it computes here is unknown", model.container.label)
        return
    from tinyinfer.bundle.verify import replay

    logger.info("verifying target %s on %s, which is new", model.target, identity)
    verdicts = replay(model, executable, vectors)
    failing = [verdict for verdict in verdicts if verdict.failing]
    if failing:
        worst = max(failing, key=lambda verdict: verdict.worst)
        kernels = model.check_kernels(executable, vectors[0])
        executable.close()
        wrong = next((kernel for kernel in kernels if not kernel.passed), None)
        where = "which of its kernels is off, it does not tell"
        if wrong is not None:
            nodes = ", ".join(wrong.names) or wrong.title
            where = (
                f"the first kernel that is off is {wrong.kernel}, by {wrong.error:.3g} with"
                f" {wrong.allowed:.3g} allowed, which computes {nodes}"
            )
        raise EPFail(
            f"{model.container.label}: target {model.target} is wrong on this driver ({identity}): output"
            f" {worst.name!r} differs by {worst.worst:.3g}, {worst.absolute:.3g} allowed; {where}"
            f" ({TRUST_VARIABLE}=1 runs it unverified)"
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    except OSError as error:
        logger.warning("%s verified, but that cannot be remembered: %s", model.container.label, error)
