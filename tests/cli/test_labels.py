"""Labels from files, and the classes of an output."""

import json

import numpy as np
import pytest

from cli.errors import BadInput
from cli.labels import class_count, looks_like_imagenet, probabilities, read_labels, top_classes


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\n",
        "cat\r\n\r\ndog",
        '["cat", "dog"]',
        '{"1": "dog", "0": "cat"}',
        '{"0": ["n01", "cat"], "1": ["n02", "dog"]}',
        "{0: 'cat',\n 1: 'dog'}",
    ],
)
def test_kinds_of_label_files(tmp_path, text):
    file = tmp_path / "labels"
    file.write_bytes(text.encode())
    assert read_labels(str(file)) == ["cat", "dog"]


@pytest.mark.parametrize("content", [b"{", b"[1, 2", b'{"a": "cat"}', b"\xff\xfe\x00", b"{1: print()}"])
def test_files_that_hold_no_labels(tmp_path, content):
    file = tmp_path / "labels"
    file.write_bytes(content)
    with pytest.raises(BadInput, match="labels"):
        read_labels(str(file))


def test_scores_become_probabilities_once():
    scores = np.array([1, 2, 3], np.float32)
    softmax = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(probabilities(scores), softmax, rtol=1e-6)
    np.testing.assert_allclose(probabilities(softmax), softmax, rtol=1e-6)
    assert probabilities(np.array([1e4, 0], np.float32)).tolist() == [1, 0]


def test_top_classes_in_order_with_their_names():
    found = top_classes(np.array([[0, 3, 1, 2]], np.float32), ["a", "b", "c", "d"], 3)
    assert [c.index for c in found] == [1, 3, 2] and [c.label for c in found] == ["b", "d", "c"]


def test_a_background_class_shifts_the_labels():
    found = top_classes(np.array([0, 3, 1], np.float32), ["a", "b"])
    assert [c.label for c in found] == ["a", "b", None]


def test_shapes_of_classifiers():
    assert class_count((1, 10)) == class_count((10,)) == class_count((1, 10, 1, 1)) == 10
    assert class_count((2, 10)) is None and class_count(()) is None
    assert looks_like_imagenet((1, 1000)) and looks_like_imagenet((8, 1001)) and looks_like_imagenet((1000,))
    assert looks_like_imagenet((1, 1000, 1, 1))
    assert not looks_like_imagenet((1, 10)) and not looks_like_imagenet((1, 1000, 4))


def test_json_of_labels_is_json(tmp_path):
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(["é"]), encoding="utf-8")
    assert read_labels(str(file)) == ["é"]
