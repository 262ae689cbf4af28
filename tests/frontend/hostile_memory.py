"""Indices and sizes in data that point anywhere, with every buffer of the compiled code against a page that
nothing may touch. A program of its own: `python hostile_memory.py end` dies where something reads or writes
outside of its buffers. It prints each case before it runs.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
from onnx_models import feeds_of, one_op

from tinyinfer import InferenceSession, Limits
from tinyinfer.backends.cpu import executable
from tinyinfer.errors import TinyInferError
from tinyinfer.runtime import program

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
KEPT: list[mmap.mmap] = []
WHERE = "end"


def guarded(size: int, alignment: int) -> np.ndarray:
    """Bytes that end (or begin) at a page that cannot be read."""
    length = -(-max(size, 1) // PAGE) * PAGE
    mapping = mmap.mmap(-1, length + 2 * PAGE)
    KEPT.append(mapping)
    whole = np.frombuffer(mapping, np.uint8)
    address = whole.ctypes.data
    for page in (address, address + PAGE + length):
        assert LIBC.mprotect(page, PAGE, 0) == 0
    skip = (length - -(-max(size, 1) // alignment) * alignment) if WHERE == "end" else 0
    return whole[PAGE + skip : PAGE + skip + max(size, 1)]


class GuardedBlock:
    """As `system.Block`."""

    def __init__(self, size: int):
        self.bytes = guarded(size, 64)
        self.address, self.size = self.bytes.ctypes.data, size

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        return self.bytes[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)


def guarded_like(array: np.ndarray) -> np.ndarray:
    """A copy of `array` beside a guard page."""
    size = array.nbytes
    made = guarded(size, array.dtype.itemsize)[:size].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def guard_results(made: executable.CpuExecutable) -> None:
    """Results are written beside guard pages too."""

    def run(feeds):
        outputs = [guarded_like(np.zeros(shape, dtype)) for shape, dtype in made._results]
        made.run_into(feeds, outputs)
        return [np.array(x) for x in outputs]

    made.run = run


F, I = np.float32, np.int64
R = np.random.default_rng(3)
MIN, MAX = np.iinfo(I).min, np.iinfo(I).max
INTS = (MIN, MIN + 1, MAX, -1, -2, -9, 3, 4, 99, 1 << 31, -(1 << 31), (1 << 32) + 1, 1 << 40, -(1 << 40), 0)
FLOATS = (np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 1e-40, 2.5, -1.5)
X = R.standard_normal((3, 4)).astype(F)
IMAGE = R.standard_normal((1, 2, 5, 5)).astype(F)


def ints(*shape, dtype=I):
    return np.zeros(shape, dtype)


CASES = [
    # op, inputs, the inputs that are hostile, opset, attributes
    ("Gather", [X, ints(2, 3)], [1], 17, {}),
    ("Gather", [X, ints(5, dtype=np.int32)], [1], 17, {"axis": 1}),
    ("Gather", [R.standard_normal((3, 1000)).astype(F), ints(7)], [1], 17, {}),
    ("GatherElements", [X, ints(3, 2)], [1], 17, {"axis": 1}),
    ("GatherND", [X, ints(5, 2)], [1], 17, {}),
    ("GatherND", [X, ints(3, 1)], [1], 17, {"batch_dims": 1}),
    ("Scatter", [X, ints(2, 2), X[:2, :2].copy()], [1], 9, {}),
    ("ScatterElements", [X, ints(2, 2), X[:2, :2].copy()], [1], 18, {"axis": 1}),
    ("ScatterElements", [X, ints(2, 2), X[:2, :2].copy()], [1], 18, {"reduction": "add"}),
    ("ScatterND", [X, ints(3, 1), X], [1], 18, {}),
    ("ScatterND", [X, ints(3, 2), X[0, :3].copy()], [1], 18, {"reduction": "max"}),
    ("OneHot", [ints(3), np.array([4]), np.array([0, 1], F)], [0], 17, {}),
    ("OneHot", [np.zeros(3, F), np.array([4]), np.array([0, 1], F)], [0], 17, {}),
    ("OneHot", [ints(3), np.array([4]), np.array([0, 1], F)], [1], 17, {}),
    ("Slice", [X, ints(1), ints(1), ints(1), np.array([1])], [1, 2], 17, {}),
    ("Slice", [X, ints(1), np.array([9]), ints(1), np.array([1])], [4], 17, {}),
    ("Slice", [X, ints(1), np.array([9]), ints(1), np.array([1])], [3], 17, {}),
    ("Compress", [X, np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], bool)], [], 17, {}),
    ("TopK", [X, np.array([2])], [1], 17, {}),
    ("TopK", [X, np.array([2])], [0], 17, {}),
    ("ArgMax", [X], [0], 17, {}),
    ("GridSample", [IMAGE, np.zeros((1, 3, 3, 2), F)], [1], 20, {}),
    ("GridSample", [IMAGE, np.zeros((1, 3, 3, 2), F)], [1], 20, {"mode": "cubic", "padding_mode": "border"}),
    ("GridSample", [IMAGE, np.zeros((1, 3, 3, 2), F)], [1], 20, {"padding_mode": "reflection"}),
    ("GridSample", [IMAGE, np.zeros((1, 3, 3, 2), F)], [1], 20, {"mode": "nearest"}),
    ("RoiAlign", [IMAGE, np.array([[0, 0, 3, 3]], F), ints(1)], [2], 16, {"output_height": 2}),
    ("RoiAlign", [IMAGE, np.array([[0, 0, 3, 3]], F), ints(1)], [1], 16, {"output_height": 2}),
    ("MaxRoiPool", [IMAGE, np.array([[0, 0, 0, 3, 3]], F)], [1], 16, {"pooled_shape": [2, 2]}),
    ("DeformConv", [IMAGE, np.ones((1, 2, 2, 2), F), np.zeros((1, 8, 4, 4), F)], [2], 19, {}),
    ("MaxUnpool", [np.ones((1, 1, 2, 2), F), ints(1, 1, 2, 2)], [1], 11,
     {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("ReverseSequence", [X, ints(4)], [1], 10, {"time_axis": 0, "batch_axis": 1}),
    ("TensorScatter", [np.ones((2, 4, 3), F), np.ones((2, 2, 3), F), ints(2)], [2], 24, {"axis": 1}),
    ("TensorScatter", [np.ones((2, 4, 3), F), np.ones((2, 2, 3), F), ints(2)], [2], 24,
     {"axis": 1, "mode": "circular"}),
    ("NonMaxSuppression", [np.ones((1, 3, 4), F), np.ones((1, 1, 3), F), np.array([2])], [0], 11, {}),
    ("NonMaxSuppression", [np.ones((1, 3, 4), F), np.ones((1, 1, 3), F), np.array([2])], [2], 11, {}),
    ("NegativeLogLikelihoodLoss", [X, ints(3)], [1], 17, {}),
    ("SoftmaxCrossEntropyLoss", [X, ints(3)], [1], 17, {"ignore_index": -1}),
    ("Trilu", [X, np.array(0)], [1], 17, {}),
    ("CumSum", [X, np.array(0)], [1], 17, {}),
    ("Range", [np.array(0), np.array(3), np.array(1)], [0], 17, {}),
    ("Range", [np.array(0), np.array(3), np.array(1)], [1], 17, {}),
    ("Range", [np.array(0), np.array(3), np.array(1)], [2], 17, {}),
    ("Range", [np.array(0, F), np.array(3, F), np.array(1, F)], [1], 17, {}),
    ("Tile", [X, np.array([1, 1])], [1], 17, {}),
    ("Expand", [X, np.array([3, 4])], [1], 17, {}),
    ("Reshape", [X, np.array([3, 4])], [1], 17, {}),
    ("ConstantOfShape", [np.array([3, 4])], [0], 17, {}),
    ("Pad", [X, ints(4)], [1], 17, {}),
    ("Pad", [X, ints(4)], [1], 17, {"mode": "reflect"}),
    ("Pad", [X, ints(4)], [1], 19, {"mode": "wrap"}),
    ("Resize", [IMAGE, None, np.ones(4, F)], [2], 17, {}),
    ("Resize", [IMAGE, None, None, np.array([1, 2, 5, 5])], [3], 17, {"mode": "linear"}),
    ("Resize", [IMAGE, np.zeros(8, F), np.ones(4, F)], [1], 17,
     {"coordinate_transformation_mode": "tf_crop_and_resize"}),
    ("Upsample", [IMAGE, np.ones(4, F)], [1], 9, {}),
    ("Unsqueeze", [X, np.array([0])], [1], 17, {}),
    ("Squeeze", [X, np.array([0])], [1], 17, {}),
    ("Split", [X, np.array([1, 2])], [1], 17, {}),
    ("ReduceSum", [X, np.array([0])], [1], 17, {}),
    ("CenterCropPad", [X, np.array([3, 4])], [1], 18, {}),
    ("DFT", [np.ones((1, 4, 1), F), np.array(4)], [1], 17, {"axis": 1}),
    ("STFT", [np.ones((1, 16, 1), F), np.array(4), np.ones(4, F)], [1], 17, {}),
    ("HannWindow", [np.array(4)], [0], 17, {}),
    ("MelWeightMatrix", [np.array(8), np.array(16), np.array(8192), np.array(1.0, F), np.array(99.0, F)],
     [0], 17, {}),
    ("MelWeightMatrix", [np.array(8), np.array(16), np.array(8192), np.array(1.0, F), np.array(99.0, F)],
     [3], 17, {}),
    ("AffineGrid", [np.zeros((1, 2, 3), F), np.array([1, 1, 2, 2])], [1], 20, {}),
    ("Col2Im", [np.ones((1, 4, 4), F), np.array([3, 3]), np.array([2, 2])], [1], 18, {}),
    ("Col2Im", [np.ones((1, 4, 4), F), np.array([3, 3]), np.array([2, 2])], [2], 18, {}),
    ("Div", [ints(4, dtype=np.int32), ints(4, dtype=np.int32)], [0, 1], 17, {}),
    ("Div", [ints(4), np.full(4, -1)], [0], 17, {}),
    ("Div", [ints(4), ints(4)], [0], 17, {}),
    ("Mod", [ints(4), np.full(4, -1)], [0], 17, {}),
    ("Mod", [ints(4), ints(4)], [0], 17, {}),
    ("Mod", [ints(4), ints(4)], [0], 17, {"fmod": 1}),
    ("BitShift", [np.ones(4, np.uint32), np.ones(4, np.uint32)], [1], 17, {"direction": "LEFT"}),
    ("Pow", [ints(4), ints(4)], [0, 1], 17, {}),
    ("Cast", [np.zeros(9, F)], [0], 17, {"to": 6}),
    ("Cast", [np.zeros(9, F)], [0], 17, {"to": 3}),
    ("RNN", [np.ones((2, 1, 3), F), np.ones((1, 2, 3), F), np.ones((1, 2, 2), F), None,
             ints(1, dtype=np.int32)], [4], 14, {"hidden_size": 2}),
    ("Multinomial", [X], [0], 17, {"sample_size": 3, "dtype": 7}),
    ("RotaryEmbedding", [np.ones((1, 2, 3, 4), F), np.ones((5, 2), F), np.ones((5, 2), F), ints(1, 3)], [3],
     23, {}),
    ("Attention", [np.ones((1, 1, 3, 4), F)] * 3 + [None, None, None, ints(1)], [6], 24, {}),
    ("DequantizeLinear", [ints(3, 4, dtype=np.int8), X[0].copy()], [0], 17, {"axis": 1}),
    ("QuantizeLinear", [X, np.float32(0.1), np.uint8(3)], [0], 17, {}),
    ("TfIdfVectorizer", [ints(6)], [0], 17,
     {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2**62, "max_skip_count": 2**62,
      "pool_int64s": [1, 2, 3, 4], "ngram_counts": [0, 2], "ngram_indexes": [0, 1, 2]}),
]  # fmt: skip
ML = [
    ("ArrayFeatureExtractor", [X, ints(3)], [1], {}),
    ("LabelEncoder", [ints(3)], [0], {"keys_int64s": [1, 2], "values_int64s": [5, 6]}),
    ("CategoryMapper", [ints(3)], [0], {"cats_int64s": [1, 2], "cats_strings": ["a", "b"]}),
    ("OneHotEncoder", [ints(3)], [0], {"cats_int64s": [1, 2]}),
    ("TreeEnsembleRegressor", [X], [0],
     {"n_targets": 1, "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [3, 0, 0],
      "nodes_values": [0.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
      "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0],
      "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0]}),
]  # fmt: skip
MICROSOFT = [
    ("EmbedLayerNormalization", [ints(1, 3, dtype=np.int32), ints(1, 3, dtype=np.int32), np.ones((5, 4), F),
                                 np.ones((6, 4), F), np.ones((2, 4), F), np.ones(4, F), np.ones(4, F)],
     [0, 1], {}),
    ("GroupQueryAttention", [np.ones((1, 1, 8), F), np.ones((1, 1, 8), F), np.ones((1, 1, 8), F),
                             np.ones((1, 1, 4, 8), F), np.ones((1, 1, 4, 8), F),
                             np.zeros((1, 1), np.int32), np.array(4, np.int32)], [5],
     {"num_heads": 1, "kv_num_heads": 1}),
    ("RotaryEmbedding", [np.ones((1, 3, 4), F), ints(1, 3), np.ones((5, 2), F), np.ones((5, 2), F)], [1],
     {}),
    ("CropAndResize", [IMAGE, np.array([[0, 0, 1, 1]], F), ints(1, dtype=np.int32), np.array([2, 2])],
     [1], {}),
    ("CropAndResize", [IMAGE, np.array([[0, 0, 1, 1]], F), ints(1, dtype=np.int32), np.array([2, 2])],
     [2], {}),
    ("GatherBlockQuantized", [ints(4, 32, dtype=np.uint8), ints(3), np.ones((4, 2), F)], [1],
     {"bits": 8, "block_size": 16, "quantize_axis": 1}),
    ("DynamicTimeWarping", [X], [0], {}),
]  # fmt: skip


def hostile(array: np.ndarray, number: int) -> np.ndarray:
    """`array` with the extreme values from `number` on in turn."""
    made = np.array(array)
    flat = made.reshape(-1)
    for place in range(flat.size):
        if made.dtype.kind == "f":
            flat[place] = FLOATS[(number + place) % len(FLOATS)]
        else:
            limits = np.iinfo(made.dtype)
            value = INTS[(number + place) % len(INTS)] if number < len(INTS) else INTS[number - len(INTS)]
            flat[place] = min(max(value, limits.min), limits.max)
    return made


LIMITS = Limits(max_elements=1 << 24, constant_elements=1 << 20, max_bytes=1 << 28, compile_seconds=20)


RAN: dict[str, int] = {}
REFUSED: dict[str, str] = {}


def attempt(title: str, model, inputs) -> None:
    print(title, flush=True)
    op = title.split()[0]
    RAN.setdefault(op, 0)
    try:
        session = InferenceSession(model, providers=["CPU"], limits=LIMITS)
        feeds = {k: guarded_like(v) for k, v in feeds_of(model, inputs).items()}
        session.run(None, feeds)
        RAN[op] += 1
    except TinyInferError as error:
        assert str(error)
        REFUSED[op] = str(error)


def main() -> None:
    global WHERE
    WHERE, each = sys.argv[1], int((sys.argv + ["1"])[2])
    if WHERE == "self-test":  # this must die
        WHERE = "end"
        array = guarded_like(np.zeros(5, np.int64))
        print(ctypes.c_int64.from_address(array.ctypes.data + array.nbytes).value)
    program.PATIENCE = 0  # native code at once
    executable.Block = GuardedBlock  # type: ignore[misc]
    plain = executable.CpuExecutable.__init__

    def init(self, *arguments, **named):
        plain(self, *arguments, **named)
        guard_results(self)

    executable.CpuExecutable.__init__ = init  # type: ignore[method-assign]
    cases = [(op, inputs, positions, opset, "", given) for op, inputs, positions, opset, given in CASES]
    cases += [(op, inputs, positions, 17, "ai.onnx.ml", given) for op, inputs, positions, given in ML]
    cases += [(op, inputs, positions, 17, "com.microsoft", a) for op, inputs, positions, a in MICROSOFT]
    for op, inputs, positions, opset, domain, attributes in cases:
        inputs = [None if x is None else np.asarray(x) for x in inputs]
        floats = all(inputs[p].dtype.kind == "f" for p in positions)
        steps = 1 if not positions else len(FLOATS) if floats else 2 * len(INTS)
        for number in range(0, steps, each):
            changed = [hostile(x, number) if i in positions else x for i, x in enumerate(inputs)]
            fed = one_op(op, changed, 1, opset, (), domain, **attributes)
            if domain:
                fed.opset_import.add(domain=domain, version=1)
            attempt(f"{op} {positions} {number} fed", fed, changed)
            if number % 5 == 0 and positions:
                fixed = one_op(op, changed, 1, opset, tuple(positions), domain, **attributes)
                if domain:
                    fixed.opset_import.add(domain=domain, version=1)
                attempt(f"{op} {positions} {number} constant", fixed, changed)
    for op, count in RAN.items():
        print(f"{op}: ran {count} times; {REFUSED.get(op, '')}")
    print("done")


if __name__ == "__main__":
    main()
