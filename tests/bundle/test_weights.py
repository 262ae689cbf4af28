"""Weights come back to the bit, small where that pays, shared where they are equal."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from bundle_samples import sections_of

from tinyinfer.bundle.container import Container, Section, save_bundle, write_bundle
from tinyinfer.bundle.weights import PlanTensor, Weights, WeightStore, check_tensor
from tinyinfer.errors import InvalidBundle
from tinyinfer.runtime.plan import Plan


def _bundle(store: WeightStore) -> list[Section]:
    return [Section("MANI", b"{}"), Section("WIDX", store.index()), Section("WGHT", store.content())]


def _round_trip(arrays: list[np.ndarray], store: WeightStore) -> list[PlanTensor]:
    tensors = [store.add(array) for array in arrays]
    weights = Weights(Container.open(write_bundle(_bundle(store))))
    weights.check_hashes()
    assert weights.stored == store.stored
    for tensor, array, loaded in zip(tensors, arrays, weights.load(tensors)):
        assert check_tensor(tensor, weights.stored) is None
        assert loaded.dtype == array.dtype and loaded.tobytes() == array.tobytes()
        assert loaded.ctypes.data % 64 == 0 and not loaded.flags.writeable
    return tensors


RANDOM = np.random.default_rng(5)
NOISE = RANDOM.standard_normal((64, 64)).astype(np.float32)
PADDED = np.zeros((2, 3, 40, 16), np.float32)
PADDED[:, :2], PADDED[:, 2, :, :3] = RANDOM.random((2, 2, 40, 16)), RANDOM.random((2, 40, 3))
WHOLE = RANDOM.integers(-128, 128, (64, 64))


@pytest.mark.parametrize(
    ("array", "stored", "added", "part"),
    [
        (NOISE, "float32", 0, 1),
        (WHOLE.astype(np.float32), "int8", 0, 0.25),
        (WHOLE.astype(np.int64), "int8", 0, 0.125),
        (WHOLE.astype(np.float64) + 128, "uint8", 0, 0.125),
        (WHOLE.astype(np.int32) + 1000, "uint8", 872, 0.25),
        (WHOLE.astype(np.float32) - 70000, "uint8", -70128, 0.25),
        (WHOLE.astype(np.float32) * 200, "int16", 0, 0.5),
        (WHOLE * (1 << 20), "int32", 0, 0.5),
        (WHOLE + (1 << 40), "int64", 0, 1),
        (NOISE.astype(np.float16).astype(np.float32), "float16", 0, 0.5),
        (NOISE.astype(np.float64), "float32", 0, 0.5),
        (NOISE.astype(np.float16), "float16", 0, 1),
        (np.where(NOISE > 0, np.float32(-0.0), np.float32(1)), "float16", 0, 0.5),
        (np.where(NOISE > 0, np.float32(np.inf), np.float32(0.5)), "float16", 0, 0.5),
        (np.full((64, 64), np.uint32(0x7F800001)).view(np.float32), "float32", 0, 1),
        (PADDED, "float32", 0, 0.75),
        (np.zeros((8, 2048), np.float32), "float32", 0, 0.01),
        (np.full((8, 2048), np.float32(-0.0)), "float16", 0, 0.5),
        (np.arange(100, dtype=np.int64), "int64", 0, 1),
        (np.zeros((0, 4), np.float32), "float32", 0, 1),
        (np.array(3.5), "float64", 0, 1),
        (NOISE[:, ::2], "float32", 0, 1),
        (RANDOM.random((64, 64)) > 0.5, "bool", 0, 1),
    ],
)
def test_encodings(array: np.ndarray, stored: str, added: int, part: float) -> None:
    store = WeightStore()
    (tensor,) = _round_trip([array], store)
    assert (tensor.stored_dtype, tensor.added) == (stored, added)
    assert tensor.expanded == (part < 1)
    if array.nbytes:
        assert store.stored[0].nbytes <= part * array.nbytes
    plain = WeightStore("expanded")
    (tensor,) = _round_trip([array], plain)
    assert not tensor.expanded and plain.stored[0].nbytes == array.nbytes


def test_narrow_floats_are_raw() -> None:
    import ml_dtypes

    _round_trip([NOISE.astype(ml_dtypes.bfloat16), NOISE.astype(ml_dtypes.float8_e4m3fn)], WeightStore())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_arrays_come_back() -> None:
    types = ("float32", "float64", "int32", "int64", "uint8", "uint64", "float16")
    for seed in range(60):
        random = np.random.default_rng(seed)
        shape = tuple(random.integers(1, 12, random.integers(1, 4))) + (int(random.choice((8, 16, 33))),)
        array = random.integers(-(1 << seed % 60), 1 << seed % 60, shape).astype(types[seed % 7])
        array[..., int(random.integers(0, shape[-1])) :] *= array.dtype.type(random.integers(0, 2))
        array[-1, ..., int(random.integers(0, shape[-1])) :] = 0
        _round_trip([array, np.repeat(array, 40, 0)], WeightStore())


def test_equal_content_is_stored_once() -> None:
    store = WeightStore()
    first, second, third = _round_trip([NOISE, WHOLE.astype(np.float32), WHOLE.astype(np.int32)], store)
    again = store.add(NOISE.copy())
    assert again == first and second.stored == third.stored and len(store.stored) == 2


def test_raw_tensors_are_views_of_the_file_and_shared(tmp_path: Path) -> None:
    store, other = WeightStore(), WeightStore()
    tensor, more = store.add(NOISE), store.add(NOISE * 2)
    moved = [other.add(NOISE * 3), other.add(NOISE)][1]
    save_bundle(tmp_path / "a.tinf", _bundle(store))
    save_bundle(tmp_path / "b.tinf", _bundle(other))
    first = Weights(Container.open(tmp_path / "a.tinf"))
    second = Weights(Container.open(tmp_path / "b.tinf"))
    one, two = first.load([tensor, more])
    assert one.base is not None and one.ctypes.data - two.ctypes.data == -store.stored[1].offset
    (shared,) = second.load([moved])
    assert shared.ctypes.data == one.ctypes.data
    del first, one, two
    gc.collect()
    assert shared.tobytes() == NOISE.tobytes()


def test_a_wrong_hash_shares_nothing() -> None:
    honest, liar = WeightStore(), WeightStore()
    tensor = honest.add(NOISE)
    claimed = liar.add(NOISE + 1)
    sections = _bundle(liar)
    sections[1] = Section("WIDX", honest.index())
    wrong = Weights(Container.open(write_bundle(sections)))
    (kept,) = wrong.load([claimed])
    (right,) = Weights(Container.open(write_bundle(_bundle(honest)))).load([tensor])
    assert right.tobytes() == NOISE.tobytes() and kept.tobytes() == (NOISE + 1).tobytes()
    with pytest.raises(InvalidBundle, match="tensor 0 does not match"):
        wrong.check_hashes()


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"stored": 1}, "stored tensor 1 of 1"),
        ({"nbytes": 30}, "no whole elements"),
        ({"nbytes": 400}, "copies 100 elements"),
        ({"expanded": False}, "stored raw"),
        ({"stored_dtype": "bool"}, "cannot be expanded"),
        ({"dtype": "int8", "stored_dtype": "int32", "nbytes": 8}, "cannot be expanded"),
        ({"added": 1 << 31}, "adds"),
        ({"runs": ((8, 0, 1), (0, 0, 5))}, "an empty run"),
        ({"runs": ((8, 1, 1 << 60),)}, "runs of"),
        ({"runs": ((4, 0, 1),)}, "copies 4 elements"),
    ],
)
def test_tensors_that_break_the_rules(fields: dict, wanted: str) -> None:
    store = WeightStore("expanded")
    store.add(np.arange(8, dtype=np.int8))
    good = {"stored": 0, "expanded": True, "nbytes": 32, "dtype": "float32", "stored_dtype": "int8"}
    assert check_tensor(PlanTensor(**good), store.stored) is None
    assert wanted in str(check_tensor(PlanTensor(**{**good, **fields}), store.stored))


def test_a_broken_index_is_refused() -> None:
    plan = Plan([], [], [], [NOISE, NOISE + 1], 0)
    store = WeightStore()
    sections = {section.kind: section for section in sections_of({"a": plan}, store)}
    index = store.index()
    for data, wanted in (
        (index[:-1], "no whole records"),
        (index[:80] + (64).to_bytes(8, "little") + index[88:], "inside another"),
        (index[:32] + (1 << 62).to_bytes(8, "little") + index[40:], "outside of WGHT"),
        (index[:48], "after the last tensor"),
        (index[48:], "between tensors"),
    ):
        changed = [*(s for s in sections.values() if s.kind != "WIDX"), Section("WIDX", data)]
        with pytest.raises(InvalidBundle, match=wanted):
            Weights(Container.open(write_bundle(changed)))
