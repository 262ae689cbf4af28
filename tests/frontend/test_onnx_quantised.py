"""Quantised operators against onnxruntime, bit for bit, with scales that make ties common.

The values go through all passes and the oracle; `compiled` ones through a session as well, for sums of floats
whose order matters.
"""

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper
from onnx_models import feeds_of, value_info

import tinyinfer
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.frontend.onnx.errors import InvalidGraph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.verify import verify

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(11)
MICROSOFT = "com.microsoft"
BYTES = [np.uint8, np.int8]


def model_of(op, inputs, outputs=1, opset=21, constants=(), domain="", **attributes):
    """A model of one node of any domain."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    attributes = {name.removeprefix("attribute_"): value for name, value in attributes.items()}
    node = helper.make_node(op, names, results, name="the_node", domain=domain, **attributes)
    declared = [
        value_info(n, x)
        for i, (n, x) in enumerate(zip(names, inputs))
        if x is not None and i not in constants
    ]
    literals = [numpy_helper.from_array(np.asarray(inputs[i]), names[i]) for i in constants]
    graph = helper.make_graph([node], "test", declared, [ValueInfoProto(name=r) for r in results], literals)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def ours(model, feeds):
    """The outputs by the oracle after all passes."""
    graph = optimize(import_graph(load_model(model), {name: x.shape for name, x in feeds.items()}))
    verify(graph)
    return evaluate(list(graph.outputs.values()), feeds)


def theirs(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)


def compare(op, inputs, tolerance=0.0, compiled=False, **options):
    """Integers equal onnxruntime's; floats lie within `tolerance` of their range."""
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    model = model_of(op, inputs, **options)
    feeds = feeds_of(model, [np.zeros(()) if x is None else x for x in inputs])
    expected = theirs(model, feeds)
    got = (
        tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, feeds)
        if compiled
        else ours(model, feeds)
    )
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind == "f":
            limit = tolerance * float(np.abs(a.astype(np.float64)).max(initial=0))
            np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), 0, limit)
        else:
            np.testing.assert_array_equal(b, a)


def integers(*shape, dtype=np.uint8):
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


def scale(*shape):
    """Hundredths: ratios of such scales put many values on ties."""
    return (RNG.integers(1, 20, shape) / np.float32(100)).astype(np.float32)


# ---- QuantizeLinear and DequantizeLinear

INTEGERS = [np.int8, np.uint8, np.int16, np.uint16]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("domain", ["", MICROSOFT])
def test_quantize(dtype, domain):
    x = (RNG.integers(-4000, 4000, (4, 6)) / np.float32(100)).astype(np.float32)
    x[0, :3] = np.inf, -np.inf, 3e38
    for _ in range(8):
        compare("QuantizeLinear", [x, scale(), integers(dtype=dtype)], domain=domain)
        compare("QuantizeLinear", [x, scale(6), integers(6, dtype=dtype)], domain=domain, axis=-1)
    if not domain:
        compare("QuantizeLinear", [x, scale(4, 3), integers(4, 3, dtype=dtype)], axis=1, block_size=2)
        compare("QuantizeLinear", [x, scale(4, 2), None], axis=1, block_size=4)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_dequantize(dtype):
    x = integers(4, 6, dtype=dtype)
    compare("DequantizeLinear", [x, scale(), integers(dtype=dtype)])
    compare("DequantizeLinear", [x, scale(4), integers(4, dtype=dtype)], axis=0)
    compare("DequantizeLinear", [x, scale(4, 2), integers(4, 2, dtype=dtype)], axis=1, block_size=4)
    compare("DequantizeLinear", [x, scale().astype(np.float16), integers(dtype=dtype)])


def test_dequantize_int32():
    compare("DequantizeLinear", [integers(5, dtype=np.int32), scale()])


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 25])
def test_opsets(opset):
    x = (RNG.integers(-4000, 4000, (4, 6)) / np.float32(100)).astype(np.float32)
    compare("QuantizeLinear", [x, scale(), integers()], opset=min(opset, 23))
    if opset >= 13:
        compare("QuantizeLinear", [x, scale(6), integers(6)], opset=min(opset, 23))
    compare("DequantizeLinear", [integers(4, 6), scale(), integers()], opset=min(opset, 23))


def test_division_takes_the_type_of_the_scale():
    x = np.array([2.5, 0.30004883], np.float16)
    model = model_of("QuantizeLinear", [x, np.float16(0.1)], opset=23)
    (half,) = ours(model, {"x0": x, "x1": np.asarray(np.float16(0.1))})
    np.testing.assert_array_equal(half, np.rint(x / np.float16(0.1)).astype(np.uint8))
    model = model_of("QuantizeLinear", [x, np.float16(0.1)], opset=23, precision=int(TensorProto.FLOAT))
    (single,) = ours(model, {"x0": x, "x1": np.asarray(np.float16(0.1))})
    wide = x.astype(np.float32) / np.float32(np.float16(0.1))
    np.testing.assert_array_equal(single, np.rint(wide).astype(np.uint8))


def test_output_dtype():
    x = np.array([-300, 2.5, 700], np.float32)
    model = model_of("QuantizeLinear", [x, np.float32(0.5)], output_dtype=int(TensorProto.INT16))
    (y,) = ours(model, {"x0": x, "x1": np.asarray(np.float32(0.5))})
    assert y.dtype == np.int16 and y.tolist() == [-600, 5, 1400]


@pytest.mark.parametrize(
    "inputs, attributes, words",
    [
        ([np.zeros((3, 4), np.float32), np.ones(3, np.float32)], {"axis": 1}, "scalar or of shape"),
        ([np.zeros((3, 4), np.float32), np.ones(4, np.float32)], {"axis": 2}, "out of range"),
        (
            [np.zeros((3, 4), np.float32), np.ones((3, 2), np.float32)],
            {"block_size": 3, "axis": 0},
            "blocks of 3",
        ),
        ([np.zeros((3, 4), np.float32), np.ones((), np.float32), np.zeros(4, np.uint8)], {}, "zero point"),
        ([np.zeros((3, 4), np.int64), np.ones((), np.float32)], {}, "not int64"),
        (
            [np.zeros(3, np.float32), np.ones((), np.float32), np.uint8(1)],
            {"output_dtype": 3},
            "output_dtype",
        ),
    ],
)
def test_bad_parameters_are_refused_in_words(inputs, attributes, words):
    model = model_of("QuantizeLinear", inputs, **attributes)
    with pytest.raises(InvalidGraph, match=words):
        ours(model, feeds_of(model, inputs))


@pytest.mark.parametrize("values", [[0, 0, 0], [1, 2, 3], [-3, -0.5], [-1, 2.55], [1e-30, 0]])
def test_dynamic_quantize(values):
    compare("DynamicQuantizeLinear", [np.array(values, np.float32)], outputs=3)


# ---- products


@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("b_type", BYTES)
def test_convolutions(a_type, b_type):
    if a_type is np.int8 and b_type is np.uint8:
        pytest.skip("onnxruntime has no such kernel")
    attributes = {"group": 2, "pads": [1, 0, 1, 1], "strides": [1, 2], "dilations": [2, 1]}
    for per_channel in (False, True):
        x, w, bias = (
            integers(2, 6, 9, 8, dtype=a_type),
            integers(4, 3, 3, 2, dtype=b_type),
            integers(4, dtype=np.int16),
        )
        w_scale, w_zero = (
            (scale(4), np.zeros(4, b_type)) if per_channel else (scale(), integers(dtype=b_type))
        )
        parameters = [
            w,
            w_scale / np.float32(50),
            w_zero,
            scale(),
            integers(dtype=a_type),
            bias.astype(np.int32),
        ]
        compare(
            "QLinearConv",
            [x, scale(), integers(dtype=a_type), *parameters],
            constants=(3, 4, 5),
            **attributes,
        )
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        compare(
            "QLinearConv",
            [last, scale(), integers(dtype=a_type), *parameters],
            constants=(3, 4, 5),
            domain=MICROSOFT,
            channels_last=1,
            **attributes,
        )
    x = integers(2, 6, 9, 8)
    compare("ConvInteger", [x, w, np.uint8(7), integers(dtype=b_type)], constants=(1, 3), **attributes)


@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("per_column", [False, True])
def test_matrix_products(a_type, b_type, per_column):
    size = (6,) if per_column else ()
    a, b = integers(3, 5, 7, dtype=a_type), integers(7, 6, dtype=b_type)
    a_zero, b_zero = integers(dtype=a_type), integers(*size, dtype=b_type)
    compare("MatMulInteger", [a, b, a_zero, b_zero], constants=(1, 3))
    floats = RNG.standard_normal(a.shape).astype(np.float32)
    options = {"domain": MICROSOFT, "tolerance": 1e-6}
    compare(
        "DynamicQuantizeMatMul", [floats, b, scale(*size), b_zero, scale(6)], constants=(1, 2, 3), **options
    )
    if a_type is np.int8 and b_type is np.uint8:
        return  # onnxruntime has no kernels of the others
    matrix = [a, scale(), a_zero, b, scale(*size), np.zeros(size, b_type)]
    compare("QLinearMatMul", [*matrix, scale() * np.float32(100), a_zero], constants=(3, 4, 5))
    compare("MatMulIntegerToFloat", [a, b, scale(), scale(*size), a_zero, b_zero, scale(6)], **options)
    for transposed in (0, 1):
        left, right = (a[0].T, b.T) if transposed else (a[0], b)
        bias = integers(6, dtype=np.int16).astype(np.int32)
        gemm = [
            np.ascontiguousarray(left),
            scale(),
            a_zero,
            np.ascontiguousarray(right),
            scale(*size),
            b_zero,
            bias,
        ]
        attributes = {"transA": transposed, "transB": transposed, "alpha": 1.5, "domain": MICROSOFT}
        compare("QGemm", [*gemm, scale() * np.float32(100), a_zero], constants=(3, 5), **attributes)
        compare("QGemm", gemm, constants=(3, 5), tolerance=1e-6, **attributes)


def test_zero_points_of_rows():
    a, b, zero = integers(3, 5, 7), integers(7, 6, dtype=np.int8), integers(5)
    model = model_of("MatMulInteger", [a, b, zero])
    (y,) = ours(model, feeds_of(model, [a, b, zero]))
    wanted = (a.astype(np.int32) - zero[:, None]) @ b.astype(np.int32)
    np.testing.assert_array_equal(y, wanted)


def test_integers_of_16_bits():
    a, b = integers(3, 4, dtype=np.int16) // 64, integers(4, 5, dtype=np.int16) // 64
    compare("MatMulInteger16", [a, b], domain=MICROSOFT)


def test_integer_arithmetic_without_a_kernel_in_onnxruntime():
    a, b = integers(3, 4), integers(4)
    model = model_of("MulInteger", [a, np.uint8(3), b, np.uint8(250)], domain=MICROSOFT)
    (y,) = ours(model, feeds_of(model, [a, np.asarray(np.uint8(3)), b, np.asarray(np.uint8(250))]))
    np.testing.assert_array_equal(y, (a.astype(np.int32) - 3) * (b.astype(np.int32) - 250))
    model = model_of("ReduceSumInteger", [a], domain=MICROSOFT, axes=[1], keepdims=0)
    (y,) = ours(model, {"x0": a})
    np.testing.assert_array_equal(y, a.sum(1, dtype=np.uint32))


# ---- functions of quantised values


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("seed", range(4))
def test_two_operands(dtype, seed):
    a, b = (v.astype(np.uint8).view(dtype) for v in np.meshgrid(np.arange(256), np.arange(256)))

    def zero():
        return integers(dtype=dtype)

    options = {"domain": MICROSOFT}
    compare("QLinearAdd", [a, scale(), zero(), b, scale(), zero(), scale(), zero()], **options)
    compare(
        "QLinearAdd", [a, scale(), zero(), b[:1], scale(), zero(), scale(), zero()], constants=(3,), **options
    )
    compare("QLinearMul", [a, scale(), zero(), b, scale(), zero(), scale(), zero()], **options)
    compare("QLinearWhere", [a > zero(), a, scale(), zero(), b, scale(), zero(), scale(), zero()], **options)
    compare("QLinearConcat", [scale(), zero(), a, scale(), zero(), b, scale(), zero()], axis=1, **options)


@pytest.mark.parametrize("dtype", BYTES)
def test_one_operand(dtype):
    every = np.arange(256).astype(np.uint8).view(dtype).reshape(2, 128)

    def zero():
        return integers(dtype=dtype)

    options = {"domain": MICROSOFT, "constants": (1, 2, 3, 4)}
    lowest = np.array(np.iinfo(dtype).min, dtype)
    for _ in range(4):
        compare("QLinearLeakyRelu", [every, scale(), zero(), scale(), zero()], alpha=0.1, **options)
        compare("QLinearSigmoid", [every, scale(), zero(), np.float32(1 / 256), lowest], **options)
        softmax = [every, scale(), zero(), np.float32(1 / 256), lowest]
        compare("QLinearSoftmax", softmax, axis=-1, attribute_opset=13, **options)
        x = integers(2, 3, 9, 8, dtype=dtype)
        for last in (0, 1):
            compare(
                "QLinearGlobalAveragePool",
                [x, scale(), zero(), scale(), zero()],
                channels_last=last,
                **options,
            )


@pytest.mark.parametrize("dtype", BYTES)
def test_average_pool(dtype):
    x = integers(2, 3, 9, 8, dtype=dtype)
    parameters = [x, scale(), integers(dtype=dtype), scale(), integers(dtype=dtype)]
    options = {"domain": MICROSOFT, "compiled": True, "kernel_shape": [3, 2]}
    compare("QLinearAveragePool", parameters, pads=[1, 0, 1, 1], strides=[2, 1], **options)
    compare(
        "QLinearAveragePool", parameters, pads=[1, 1, 1, 1], count_include_pad=1, channels_last=1, **options
    )


def test_mean():
    x, zero = integers(3, 8), integers()
    inputs = [x, np.float32(0.5), zero, np.float32(0.25), np.uint8(10)]
    model = model_of("QLinearReduceMean", inputs, domain=MICROSOFT, axes=[1], keepdims=0)
    (y,) = ours(model, feeds_of(model, [np.asarray(v) for v in inputs]))
    mean = ((x.astype(np.float64) - zero) * 0.5).mean(1)
    np.testing.assert_array_equal(y, np.clip(np.rint(mean / 0.25) + 10, 0, 255).astype(np.uint8))


# ---- weights of few bits


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block, k", [(16, 33), (32, 128), (128, 100)])
def test_products_with_few_bits(bits, block, k):
    n, count = 7, -(-k // block)
    a, b = RNG.standard_normal((2, 3, k)).astype(np.float32), integers(n, count, block * bits // 8)
    scales = (RNG.random((n, count)) + 0.1).astype(np.float32)
    zeros = integers(n, -(-count * bits // 8))
    options = {"domain": MICROSOFT, "tolerance": 1e-6, "bits": bits, "block_size": block, "N": n, "K": k}
    compare("MatMulNBits", [a, b, scales], constants=(1, 2), **options)
    compare("MatMulNBits", [a, b, scales, zeros, None, scales[:, 0]], constants=(1, 2, 3, 5), **options)
    compare("MatMulNBits", [a, b, scales.reshape(-1), zeros.reshape(-1)], constants=(1, 2, 3), **options)
    if bits == 4:
        order = RNG.permutation(np.arange(k) // block).astype(np.int32)
        compare("MatMulNBits", [a, b, scales, None, order], constants=(1, 2, 4), **options)
        floats = (RNG.random((n, count)) * 4).astype(np.float32)
        compare("MatMulNBits", [a, b, scales, floats, order], constants=(1, 2, 3, 4), **options)


def test_products_with_no_weights_are_the_bias():
    a, bias = np.ones((2, 64), np.float32), np.arange(7, dtype=np.float32)
    inputs = [a, np.zeros((0, 2, 16), np.uint8), np.zeros((7, 2), np.float32), None, None, bias]
    model = model_of("MatMulNBits", inputs, domain=MICROSOFT, N=7, K=64, block_size=32)
    (y,) = ours(model, feeds_of(model, [np.zeros(()) if x is None else x for x in inputs]))
    np.testing.assert_array_equal(y, [bias, bias])


@pytest.mark.parametrize("kind", [0, 1])
def test_products_with_4_bit_floats(kind):
    a = RNG.standard_normal((3, 64)).astype(np.float32)
    largest = (RNG.random(7 * 64 // 32) + 0.1).astype(np.float32)
    options = {"domain": MICROSOFT, "tolerance": 1e-6, "N": 7, "K": 64, "block_size": 32, "quant_type": kind}
    compare("MatMulBnb4", [a, integers(7 * 32), largest], constants=(1, 2), **options)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tables_of_few_bits(bits):
    data, scales = integers(11, 64 * bits // 8), (RNG.random((11, 4)) + 0.1).astype(np.float32)
    options = {"domain": MICROSOFT, "bits": bits, "block_size": 16, "tolerance": 1e-6}
    for dtype in (np.int32, np.int64):
        places = np.array([[0, 3, -1], [10, 2, 2]], dtype)
        compare("GatherBlockQuantized", [data, places, scales], constants=(0, 2), **options)
        zeros = integers(11, 4 * bits // 8)
        compare("GatherBlockQuantized", [data, places, scales, zeros], constants=(0, 2, 3), **options)


# ---- fused operators


@pytest.mark.parametrize(
    "activation, parameters",
    [("Relu", []), ("Sigmoid", []), ("Tanh", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.7]),
     ("HardSigmoid", [0.3, 0.4])],
)  # fmt: skip
def test_fused_activations(activation, parameters):
    x, w, bias = (RNG.standard_normal(s).astype(np.float32) for s in ((2, 4, 9, 8), (6, 4, 3, 3), (6,)))
    options = {"domain": MICROSOFT, "tolerance": 2e-6, "activation": activation}
    given = {"activation_params": parameters} if parameters else {}
    compare("FusedConv", [x, w, bias], pads=[1] * 4, **options, **given)
    if activation == "Clip":
        return  # onnxruntime's FusedGemm has none
    named = dict(zip(("activation_alpha", "activation_beta"), parameters))
    a, b = x[0, :, 0], w[:, :, 0, 0].repeat(2, 1)
    compare("FusedGemm", [a, b, bias], transB=1, alpha=0.5, beta=2.0, **options, **named)
    compare("FusedGemm", [a, b], transB=1, **options, **named)


def test_fused_residual():
    x, w, bias, z = (
        RNG.standard_normal(s).astype(np.float32) for s in ((2, 4, 9, 8), (6, 4, 3, 3), (6,), (2, 6, 9, 8))
    )
    compare("FusedConv", [x, w, bias, z], 2e-6, pads=[1] * 4, activation="Relu", domain=MICROSOFT)


@pytest.mark.parametrize("flags", range(16))
def test_fused_transpositions(flags):
    matrix = [bool(flags & 1), bool(flags & 2)]
    batch = [bool(flags & 4), bool(flags & 8)]
    operands = []
    for shape, last, first in zip(((2, 3, 4, 5), (2, 3, 5, 6)), matrix, batch):
        x = RNG.standard_normal(shape).astype(np.float32)
        order = [1, 2] if first else [0, 1]
        # stored so that moving the first axis behind the other batch axes gives the operand
        axes = ([3, 0, 1, 2] if last else [2, 0, 1, 3]) if first else [*order, *([3, 2] if last else [2, 3])]
        operands.append(np.ascontiguousarray(x.transpose(axes)))
    names = dict(zip(("transA", "transB", "transBatchA", "transBatchB"), map(int, (*matrix, *batch))))
    compare("FusedMatMul", operands, 2e-6, domain=MICROSOFT, alpha=0.5, **names)


def test_channels_last():
    x = integers(2, 9, 8, 4)
    compare("NhwcMaxPool", [x], domain=MICROSOFT, kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 1, 1])
    floats, w = (RNG.standard_normal(s).astype(np.float32) for s in ((1, 6, 5, 4), (3, 4, 3, 3)))
    model = model_of("NhwcConv", [floats, w], domain=MICROSOFT, pads=[1] * 4)
    (y,) = ours(model, {"x0": floats, "x1": w})
    first = np.ascontiguousarray(np.moveaxis(floats, -1, 1))
    plain = model_of("Conv", [first, w], pads=[1] * 4)
    (wanted,) = theirs(plain, {"x0": first, "x1": w})
    np.testing.assert_allclose(y, np.moveaxis(wanted, 1, -1), 1e-5, 1e-5)


# ---- types that onnxruntime's Python cannot be fed: against the reference of the onnx package


def reference(model, feeds):
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, feeds)


def compare_with_reference(op, inputs, **options):
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    model = model_of(op, inputs, **options)
    feeds = feeds_of(model, [np.zeros(()) if x is None else x for x in inputs])
    for a, b in zip(reference(model, feeds), ours(model, feeds), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_array_equal(b.astype(np.float32), a.astype(np.float32))


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_integers_of_few_bits(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = getattr(ml_dtypes, name)
    limits = ml_dtypes.iinfo(dtype)

    def few(*shape):
        return RNG.integers(int(limits.min), int(limits.max) + 1, shape).astype(dtype)

    x = (RNG.integers(-400, 400, (4, 6)) / np.float32(100)).astype(np.float32)
    for shape, attributes in (((), {}), ((6,), {"axis": 1}), ((4, 3), {"axis": 1, "block_size": 2})):
        compare_with_reference("QuantizeLinear", [x, scale(*shape), few(*shape)], opset=25, **attributes)
        compare_with_reference(
            "DequantizeLinear", [few(4, 6), scale(*shape), few(*shape)], opset=25, **attributes
        )


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_floats_of_8_bits(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = getattr(ml_dtypes, name)
    x = (RNG.integers(-4000, 4000, (4, 6)) / np.float32(10)).astype(np.float32)
    x[0, :2] = 1e30, -1e30
    for saturate in (0, 1):
        for size in ((), (6,)):
            parameters = [scale(*size), np.zeros(size, dtype)]
            compare_with_reference("QuantizeLinear", [x, *parameters], saturate=saturate)
    compare_with_reference("DequantizeLinear", [(x / 10).astype(dtype), scale(6), np.zeros(6, dtype)])
    compare_with_reference("DequantizeLinear", [(x / 10).astype(dtype), scale()])


def test_tables_of_int4():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    data = RNG.integers(-8, 8, (32, 11)).astype(ml_dtypes.int4)
    zeros = RNG.integers(-8, 8, (2, 11)).astype(ml_dtypes.int4)
    scales = RNG.random((2, 11)).astype(np.float32)
    options = {"domain": MICROSOFT, "block_size": 16, "quantize_axis": 0, "tolerance": 1e-6}
    for axis in (0, 1):
        places = np.array([[1, 2], [-1, 0]])
        inputs = [data, places, scales, zeros]
        compare("GatherBlockQuantized", inputs, gather_axis=axis, constants=(0, 2, 3), **options)


def test_float8_products():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = ml_dtypes.float8_e4m3fn
    a, b = (RNG.standard_normal(s).astype(dtype) for s in ((3, 5), (5, 4)))
    zero = np.zeros((), dtype)
    inputs = [a, np.float32(0.5), zero, b, np.float32(0.25), zero, np.float32(0.125), zero]
    model = model_of("QLinearMatMul", inputs)
    (y,) = ours(model, feeds_of(model, [np.asarray(x) for x in inputs]))
    wanted = (a.astype(np.float32) @ b.astype(np.float32)).astype(dtype)
    np.testing.assert_array_equal(y.astype(np.float32), wanted.astype(np.float32))


# ---- attention


@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("masked", [None, "lengths", "mask"])
def test_attention(b_type, per_column, masked):
    batch, steps, width, heads, past_steps = 2, 5, 8, 2, 3
    size = (3 * width,) if per_column else ()
    x, weights = integers(batch, steps, width), integers(width, 3 * width, dtype=b_type)
    bias = RNG.standard_normal(3 * width).astype(np.float32)
    past = RNG.standard_normal((2, batch, heads, past_steps, width // heads)).astype(np.float32)
    mask = {
        "lengths": np.array([3, 5], np.int32),
        "mask": RNG.integers(0, 2, (batch, steps)).astype(np.int32),
    }
    parameters = [np.float32(0.01), np.full(size, 0.02, np.float32), mask.get(masked), integers()]
    inputs = [x, weights, bias, *parameters, np.full(size, 7, b_type)]
    options = {"domain": MICROSOFT, "num_heads": heads, "constants": (1, 2, 3, 4, 6, 7), "tolerance": 1e-5}
    compare("QAttention", inputs, unidirectional=0, **options)
    if masked is None:
        compare("QAttention", [*inputs, past], outputs=2, unidirectional=1, **options)


# ---- recurrent layers


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_lstm(direction, per_column, batch):
    """onnxruntime on several threads takes the range of each thread's part of the batch: one thread here."""
    count, width, hidden = 1 + (direction == "bidirectional"), 5, 4
    x = RNG.standard_normal((6, batch, width)).astype(np.float32)
    w, r = integers(count, width, 4 * hidden), integers(count, hidden, 4 * hidden)
    bias = RNG.standard_normal((count, 8 * hidden)).astype(np.float32)
    size = (count, 4 * hidden) if per_column else (count,)
    parameters = [np.full(size, 0.02, np.float32), np.full(size, 130, np.uint8)] * 2
    inputs = [x, w, r, bias, None, None, None, None, *parameters]
    options = {"domain": MICROSOFT, "hidden_size": hidden, "direction": direction, "outputs": 3}
    compare("DynamicQuantizeLSTM", inputs, 2e-6, constants=(1, 2, 8, 9, 10, 11), **options)


def test_missing_inputs():
    """onnxruntime refuses a model without these zero points, or aborts."""
    a = integers(3, 4)
    inputs = [a, np.float32(0.5), None, a, np.float32(0.25), None, np.float32(0.5)]
    without = model_of("QLinearAdd", inputs, domain=MICROSOFT)
    given = [np.asarray(np.uint8(0) if x is None else x) for x in inputs]
    with_zeros = model_of("QLinearAdd", given, domain=MICROSOFT)
    (a_result,), (b_result,) = (ours(m, feeds_of(m, given)) for m in (without, with_zeros))
    np.testing.assert_array_equal(a_result, b_result)
    model = model_of("QLinearAdd", inputs[:4], domain=MICROSOFT)
    with pytest.raises(InvalidGraph, match="'B_scale' is missing"):
        ours(model, feeds_of(model, [np.zeros(()) if x is None else np.asarray(x) for x in inputs[:4]]))
