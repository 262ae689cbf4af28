"""The index algebra against brute force: same values, sound intervals, canonical forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyinfer.ir.index import (
    Atom,
    Axis,
    Index,
    Slot,
    atoms_of,
    evaluate,
    flatten,
    floor_divide,
    index,
    modulo,
    row_major_strides,
    substitute,
    unflatten,
)

AXES = (Axis("a", 4), Axis("b", 3), Axis("c", 6))
POSITIONS = list(itertools.product(*(range(axis.size) for axis in AXES)))

# An expression is a pair: the Index made by the algebra, and what plain integers give at every position.
COLUMNS: dict[Atom, np.ndarray] = {axis: np.array([p[i] for p in POSITIONS]) for i, axis in enumerate(AXES)}


def _leaves():
    return st.one_of(
        st.sampled_from(AXES).map(lambda axis: (index(axis), COLUMNS[axis])),
        st.integers(-20, 20).map(lambda n: (index(n), np.full(len(POSITIONS), n))),
    )


def _grow(children):
    divisors = st.sampled_from((1, 2, 3, 4, 5, 6, 8, 12, 24))
    return st.one_of(
        st.tuples(children, children).map(lambda ab: (ab[0][0] + ab[1][0], ab[0][1] + ab[1][1])),
        st.tuples(children, children).map(lambda ab: (ab[0][0] - ab[1][0], ab[0][1] - ab[1][1])),
        st.tuples(children, st.integers(-12, 12)).map(lambda an: (an[0][0] * an[1], an[0][1] * an[1])),
        st.tuples(children, divisors).map(lambda an: (an[0][0] // an[1], an[0][1] // an[1])),
        st.tuples(children, divisors).map(lambda an: (an[0][0] % an[1], an[0][1] % an[1])),
    )


expressions = st.recursive(_leaves(), _grow, max_leaves=8)


def _values(value):
    return np.broadcast_to(evaluate(value, COLUMNS.__getitem__), len(POSITIONS))


@settings(max_examples=600, deadline=None)
@given(expressions)
def test_every_constructor_keeps_the_value_and_a_sound_interval(expression):
    made, expected = expression
    np.testing.assert_array_equal(_values(made), expected)
    assert made.lo <= expected.min() and expected.max() <= made.hi


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_terms_are_canonical(expression):
    made, _ = expression
    texts = [atom.text for atom, _ in made.terms]
    assert texts == sorted(texts) and len(set(texts)) == len(texts)
    assert all(c for _, c in made.terms)


@settings(max_examples=200, deadline=None)
@given(expressions, expressions, expressions)
def test_substitution_replaces_values(outer, first, second):
    made, _ = outer
    spread: dict[Atom, Index] = {AXES[0]: modulo(first[0], 4), AXES[1]: modulo(second[0], 3)}
    replaced = substitute(made, spread)
    columns: dict[Atom, np.ndarray] = {**COLUMNS, AXES[0]: first[1] % 4, AXES[1]: second[1] % 3}
    expected = np.broadcast_to(evaluate(made, columns.__getitem__), len(POSITIONS))
    np.testing.assert_array_equal(_values(replaced), expected)


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_the_value_depends_on_no_other_atoms(expression):
    made, _ = expression
    assert atoms_of(made) <= set(AXES)


A, B, C = (index(axis) for axis in AXES)


@pytest.mark.parametrize("made, expected", [
    (floor_divide(A * 3 + B, 3), A),                       # a whole multiple and a small rest
    (modulo(A * 3 + B, 3), B),
    (floor_divide(A * 12 + B * 4 + 3, 12), A),             # the rest never reaches the divisor
    (modulo(floor_divide(A * 18 + B * 6 + C, 6), 3), B),   # unflatten of a flatten
    (A // 2 * 2 + A % 2, A),                               # quotient and remainder join
    (C // 2 // 3, index(0)),                               # a quotient that is always 0
    (modulo(C % 4, 2), C % 2),                             # a remainder of a remainder that it divides
    (floor_divide(C // 2, 2), C // 4),                     # nested quotients
    (A - A, index(0)),
    (A * 0 + 7, index(7)),
])
def test_simplifications(made, expected):
    assert made == expected
    assert hash(made) == hash(expected)


def test_an_axis_of_one_position_is_zero():
    assert index(Axis("o0", 1)) == index(0)


@pytest.mark.parametrize("operation", [floor_divide, modulo])
@pytest.mark.parametrize("divisor", [0, -3])
def test_divisors_must_be_positive(operation, divisor):
    with pytest.raises(ValueError, match="positive"):
        operation(A, divisor)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5,), (1, 6, 1, 2), ()])
def test_flatten_and_unflatten_are_inverse(shape):
    axes = [index(Axis(f"o{i}", d)) for i, d in enumerate(shape)]
    assert unflatten(flatten(axes, shape), shape) == tuple(axes)


def test_row_major_strides_are_numpy_strides():
    assert row_major_strides((2, 3, 4)) == tuple(s // 4 for s in np.zeros((2, 3, 4), np.int32).strides)


def test_slots_with_other_intervals_are_other_atoms():
    narrow, wide = index(Slot(0, 0, 4)), index(Slot(0, -100, 100))
    assert narrow != wide
    assert (narrow + 1).hi == 5
    assert evaluate(narrow * 2 + 1, lambda atom: 3) == 7


def test_repr_reads_as_arithmetic():
    value = floor_divide(A + C, 5) * 3 - 2
    assert repr(value) == "3*((a + c)//5) + -2"
    assert isinstance(value, Index)


def test_divisions_of_slots_differ_by_what_the_slots_read():
    """Equal text is not equal data: hash-consing must not take one kernel's index for another's."""
    first, second = (index(Slot(0, 0, 9, payload)) for payload in (object(), object()))
    for operation in (floor_divide, modulo):
        assert repr(operation(first, 4)) == repr(operation(second, 4))
        assert operation(first, 4) != operation(second, 4)
        assert operation(first, 4) == operation(first, 4)
