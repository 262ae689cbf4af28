"""A few mutants of everything, the same ones each time. `python -m tests.fuzz.run` tries many more."""

import sys

import pytest

from .corpus import corpus
from .run import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and limits of memory")


def test_mutants_are_refused_in_words_or_run():
    tried, findings = fuzz(corpus(), seed=0, mutants=400, seconds=60)
    assert not findings, findings
    assert tried == 400


def test_the_harness_sees_what_goes_wrong(monkeypatch):
    from . import run

    def broken(content, run):
        if len(content) % 2:
            raise SystemError  # not what `check` lets through: the child dies
        return "KeyError: somewhere at there"

    monkeypatch.setattr(run, "check", broken)
    _, findings = fuzz(corpus()[:5], seed=0, mutants=4, seconds=60)
    assert findings
