"""Feeds: what is accepted as it is, what is converted, and what each wrong feed is told."""

import numpy as np
import pytest

from tinyinfer.errors import InvalidArgument
from tinyinfer.runtime.feeds import FeedCheck, InputSpec

CHECK = FeedCheck([
    InputSpec("image", "float32", ("n", 3, None)),
    InputSpec("ids", "int64", ("n",)),
    InputSpec("bias", "float32", (2,), required=False),
])  # fmt: skip


def good():
    return {"image": np.zeros((2, 3, 5), np.float32), "ids": np.zeros(2, np.int64)}


def test_good_arrays_are_handed_on_without_a_copy():
    feed = good()
    arrays = CHECK.arrays(feed)
    assert list(arrays) == ["image", "ids"]
    assert all(arrays[name] is feed[name] for name in feed)


def test_arrays_come_in_the_order_of_the_inputs():
    feed = good()
    assert list(CHECK.arrays({name: feed[name] for name in reversed(feed)})) == ["image", "ids"]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
        lambda x: x[:, ::-1][:, ::-1],
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
    ],
    ids=["fortran", "strided", "reversed", "byte-swapped", "list", "unaligned"],
)
def test_unusual_memory_becomes_plain(make):
    values = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    given = make(values)
    array = CHECK.arrays({**good(), "image": given})["image"]
    assert array.flags.c_contiguous and array.flags.aligned and array.dtype == np.dtype("float32")
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, values)


def test_read_only_arrays_are_accepted():
    feed = good()
    feed["image"].flags.writeable = False
    assert CHECK.arrays(feed)["image"] is feed["image"]


def test_scalars_of_numpy_are_arrays_of_rank_0():
    check = FeedCheck([InputSpec("x", "float32", ())])
    assert check.arrays({"x": np.float32(3)})["x"].shape == ()


def test_inputs_with_an_initializer_may_be_fed_or_left_out():
    assert "bias" not in CHECK.arrays(good())
    assert "bias" in CHECK.arrays({**good(), "bias": np.zeros(2, np.float32)})


def test_strings_of_any_kind_are_accepted_for_a_string_input():
    check = FeedCheck([InputSpec("text", "string", ("n",))])
    for words in (np.array(["a", "b"]), np.array([b"a"]), np.array(["a"], object)):
        assert check.arrays({"text": words})["text"] is words


@pytest.mark.parametrize(
    "change, words",
    [
        ({"nose": np.zeros(1)}, ["Invalid input name: 'nose'", "'image' tensor(float)[n, 3, ?]", "'ids'"]),
        ({"image": None}, ["missing", "'image'"]),
        ({"image": np.zeros((2, 3), np.float32)}, ["rank", "'image'", "got 2 ([2, 3])", "expected 3"]),
        (
            {"image": np.zeros((2, 4, 5), np.float32)},
            ["'image'", "dimension 1 is 4, expected 3", "[2, 4, 5]"],
        ),
        ({"image": np.zeros((3, 3, 5), np.float32)}, ["'ids'", "dimension 0 is 2", "'n' is 3"]),
        ({"image": np.zeros((2, 3, 5))}, ["'image'", "tensor(double)", "tensor(float)"]),
        ({"ids": np.zeros(2, np.int32)}, ["'ids'", "tensor(int32)", "tensor(int64)"]),
        ({"ids": 3}, ["'ids'", "int was given", "numpy array"]),
        ({"ids": (1, 2)}, ["'ids'", "tuple was given"]),
        ({"ids": ["a", "b"]}, ["'ids'", "the list is no tensor(int64)"]),
    ],
)
def test_wrong_feeds_say_what_came_and_what_was_expected(change, words):
    with pytest.raises(InvalidArgument) as caught:
        CHECK.arrays({**good(), **change})
    for word in words:
        assert word in str(caught.value)


def test_missing_and_unknown_names_are_told_together():
    with pytest.raises(
        InvalidArgument, match="Invalid input name: 'x'.*missing from the feed: 'image', 'ids'"
    ):
        CHECK.arrays({"x": np.zeros(1)})


def test_a_feed_must_be_a_mapping():
    with pytest.raises(InvalidArgument, match="the feed is a list"):
        CHECK.arrays([np.zeros(1)])  # type: ignore[arg-type]


def test_dimensions_that_exporters_did_not_name_need_not_agree():
    check = FeedCheck([InputSpec("x", "float32", ("?", "?"))])
    assert check.arrays({"x": np.zeros((2, 3), np.float32)})["x"].shape == (2, 3)
