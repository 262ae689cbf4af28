"""Fuzzing from the command line: `python -m tests.fuzz.run --mutants 100000 --seed 1 --keep FOLDER`.

Each batch of mutants runs in a process of its own, forked after everything is loaded, with limited memory;
a process that dies or does not answer is a finding about the mutant that it had begun.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import select
import signal
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from .check import check
from .corpus import corpus
from .mutate import mutant

BATCH = 250
MEMORY = 6 << 30
RUN_ONE_IN = 50
"""How many mutants are imported for one that is compiled and run too."""
PATIENCE = 60
"""Seconds after which a mutant counts as one that hangs."""


def make(seeds: list[bytes], seed: int, number: int) -> tuple[bytes, bool]:
    """Mutant `number` of a run with this seed, and whether it is compiled and run."""
    generator = random.Random(seed * 1_000_003 + number)
    return mutant(generator.choice(seeds), seeds, generator), number % RUN_ONE_IN == 0


def fuzz(
    seeds: list[bytes], seed: int, mutants: int, seconds: float, keep: Path | None = None, talk: bool = False
) -> tuple[int, list[tuple[int, str]]]:
    """How many mutants were tried, and the findings: the number of a mutant and what happened."""
    findings: list[tuple[int, str]] = []
    kinds: Counter[str] = Counter()
    begun, number, printed = time.monotonic(), 0, 0
    while number < mutants and time.monotonic() - begun < seconds:
        until = min(number + BATCH, mutants)
        number, found = _batch(seeds, seed, number, until, begun + seconds)
        for which, text in found:
            findings.append((which, text))
            kind = text.split(" at ")[-1]
            kinds[kind] += 1
            if kinds[kind] <= 3:
                if talk:
                    print(f"{which}: {text}", flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}_{which}.onnx").write_bytes(make(seeds, seed, which)[0])
        if talk and number - printed >= 10_000:
            printed = number
            speed = number / (time.monotonic() - begun)
            print(f"-- {number} mutants, {len(findings)} findings, {speed:.0f} a second", flush=True)
    return number, findings


def _batch(
    seeds: list[bytes], seed: int, number: int, until: int, deadline: float
) -> tuple[int, list[tuple[int, str]]]:
    """Run mutants in a child; the first number that was not tried, and the findings."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receive)
            _work(seeds, seed, number, until, deadline, send)
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    findings = []
    current = None
    while True:
        ready, _, _ = select.select([receive], [], [], PATIENCE)
        if not ready:
            os.kill(child, signal.SIGKILL)
            begun = current if current is not None else number
            findings.append((begun, f"no answer in {PATIENCE} s at hang"))
            break
        header = _exactly(receive, 16)
        if len(header) < 16:
            break
        which, length = struct.unpack("<qq", header)
        if length == 0:
            current = which
        else:
            findings.append((which, _exactly(receive, length).decode(errors="replace")))
    os.close(receive)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        findings.append((current or 0, f"the process died of signal {os.WTERMSIG(status)} at crash"))
    elif status and not findings:
        findings.append((current or 0, f"the process ended with status {status} at end"))
    return (number if current is None else current + 1), findings


def _exactly(source: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(source, size - len(data))
        if not more:
            break
        data += more
    return data


def _work(seeds: list[bytes], seed: int, number: int, until: int, deadline: float, send: int) -> None:
    import faulthandler

    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    for which in range(number, until):
        if time.monotonic() > deadline:
            return
        os.write(send, struct.pack("<qq", which, 0))
        begun = time.monotonic()
        try:
            found = check(*make(seeds, seed, which))
        except Exception as error:
            found = f"{error!r} at the mutator"
        taken = time.monotonic() - begun
        if found is None and taken > 20:
            found = f"took {taken:.0f} s at slow"
        if found is not None:
            text = found.encode()[:4000]
            os.write(send, struct.pack("<qq", which, len(text)) + text)


def main() -> int:
    """The command line; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the first mutants of each finding")
    parser.add_argument("--run-one-in", type=int, default=RUN_ONE_IN, help="compile and run one mutant in N")
    options = parser.parse_args()
    globals()["RUN_ONE_IN"] = options.run_one_in
    seeds = corpus()
    print(f"{len(seeds)} seeds", flush=True)
    tried, findings = fuzz(seeds, options.seed, options.mutants, options.seconds, options.keep, talk=True)
    print(f"{tried} mutants, {len(findings)} findings")
    for kind, count in Counter(text.split(" at ")[-1] for _, text in findings).most_common():
        print(f"{count:6d} {kind}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
