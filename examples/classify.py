"""Classifies a picture with a model that is a shared library: ctypes and numpy, no tinyinfer.

    tinyinfer compile classifier.onnx --emit so -o libclassifier.so
    python examples/classify.py ./libclassifier.so image.bin

The model has one input, `image`, and one output, `scores`, of the shapes below; image.bin holds the input's
floats.
"""

import ctypes
import sys

import numpy as np
from numpy.ctypeslib import ndpointer

IMAGE, SCORES = (1, 3, 224, 224), (1, 1000)


class Classifier:
    """The library's functions with arrays for arguments. Threads may call it at once: they take turns."""

    def __init__(self, path: str, threads: int = 0):
        self._library = ctypes.CDLL(path)
        array = {"dtype": np.float32, "flags": "C_CONTIGUOUS"}
        self._library.classifier_run.argtypes = [
            ndpointer(shape=IMAGE, **array),
            ndpointer(shape=SCORES, **array),
        ]
        self._library.classifier_error.restype = ctypes.c_char_p
        self._check(self._library.classifier_init(threads))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        scores = np.empty(SCORES, np.float32)
        self._check(self._library.classifier_run(np.ascontiguousarray(image, np.float32), scores))
        return scores

    def verify(self) -> None:
        """Whether this machine computes what was computed where the model was compiled."""
        self._check(self._library.classifier_verify())

    def close(self) -> None:
        self._check(self._library.classifier_close())

    def _check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(self._library.classifier_error().decode())


def main(library: str, picture: str) -> None:
    classifier = Classifier(library)
    classifier.verify()
    scores = classifier(np.fromfile(picture, np.float32).reshape(IMAGE))[0]
    for best in np.argsort(-scores, kind="stable")[:5]:
        print(best, f"{scores[best]:.6g}")
    classifier.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
