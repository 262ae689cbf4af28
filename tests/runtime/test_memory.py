"""The memory planner never lets two living buffers share a byte, and stays close to the lower bound."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyinfer.runtime.memory import lower_bound, pack

lifetimes = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 5000)).map(
        lambda t: (t[0], t[0] + t[1], t[2])
    ),
    max_size=60,
)


@given(lifetimes, st.sampled_from([1, 16, 64, 4096]))
@settings(max_examples=200, deadline=None)
def test_living_buffers_are_disjoint(buffers, alignment):
    offsets, total = pack(buffers, alignment)
    assert len(offsets) == len(buffers)
    assert total >= lower_bound(buffers, alignment)
    for i, (first, last, size) in enumerate(buffers):
        assert offsets[i] >= 0 and offsets[i] % alignment == 0 and offsets[i] + size <= total
        for j in range(i):
            other_first, other_last, other_size = buffers[j]
            if size and other_size and first <= other_last and other_first <= last:
                assert offsets[i] + size <= offsets[j] or offsets[j] + other_size <= offsets[i]


def chain(steps, seed, residual=0):
    """A network's activations: each lives until the next step, and some until a residual addition."""
    pick = random.Random(seed)
    sizes = [pick.choice([1, 2, 3, 4, 6]) << pick.randrange(12, 20) for _ in range(steps)]
    sizes.sort(reverse=True)
    return [
        (step, min(steps, step + (pick.randrange(2, 6) if residual and step % residual == 0 else 1)), size)
        for step, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("residual", [0, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_chains_stay_within_ten_percent(seed, residual):
    buffers = chain(120, seed, residual)
    _, total = pack(buffers)
    assert total <= 1.1 * lower_bound(buffers)


def test_a_plain_chain_needs_two_buffers():
    offsets, total = pack([(i, i + 1, 1000) for i in range(50)])
    assert total == 2 * 1024
    assert set(offsets) == {0, 1024}


def test_nothing_and_empty_buffers():
    assert pack([]) == ([], 0)
    assert pack([(0, 3, 0), (1, 2, 64)]) == ([0, 0], 64)


@pytest.mark.parametrize("bad", [[(0, 1, -1)], [(2, 1, 8)]])
def test_bad_lifetimes_are_refused(bad):
    with pytest.raises(ValueError):
        pack(bad)
    with pytest.raises(ValueError):
        pack([], alignment=0)
