"""DFT and STFT against numpy, window functions and mel filters against onnxruntime."""

import numpy as np
import pytest
from onnx_models import run_op
from test_onnx_operators import RNG, compare, uniform

from tinyinfer.frontend.onnx.blocks.fourier import MAX_DENSE, _smooth_length


def transform(x, length=None, axis=1, opset=20, **attributes):
    """The outputs of DFT as complex numbers, or real ones where one part is given."""
    if opset >= 20:
        inputs = [x, None if length is None else np.int64(length), np.int64(axis)]
    else:
        inputs = [x, *([] if length is None else [np.int64(length)])]
        attributes["axis"] = axis
    constants = [i for i in range(1, len(inputs)) if inputs[i] is not None]
    (y,) = run_op("DFT", inputs, opset=opset, constants=constants, **attributes)
    assert y.dtype == x.dtype
    return y[..., 0] if y.shape[-1] == 1 else y[..., 0] + 1j * y[..., 1]


def signal(*shape):
    x = RNG.standard_normal(shape)
    return x, x[..., 0] if shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


# one table, a square of tables, unequal factors, three factors, primes below and above the tables, 2 x prime
LENGTHS = (1, 2, 5, MAX_DENSE, 67, 100, 134, 400, 521, 1042, 8192)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(length, parts):
    x, z = signal(2, length, parts)
    np.testing.assert_allclose(transform(x), np.fft.fft(z, axis=1), atol=1e-9)
    np.testing.assert_allclose(transform(x, inverse=1), np.fft.ifft(z, axis=1), atol=1e-9)
    if parts == 1:
        np.testing.assert_allclose(transform(x, onesided=1), np.fft.rfft(z, axis=1), atol=1e-9)
    elif length > 1:
        for n in (2 * length - 2, 2 * length - 1):
            expected = np.fft.irfft(z, n, axis=1)
            np.testing.assert_allclose(transform(x, n, inverse=1, onesided=1), expected, atol=1e-9)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("length", [None, 3, 9, 80])
@pytest.mark.parametrize("axis", [0, 2, -2])
def test_axis_and_length(axis, length, opset):
    x, z = signal(3, 5, 6, 2)
    where = axis if axis >= 0 else axis + 1
    np.testing.assert_allclose(transform(x, length, axis, opset), np.fft.fft(z, length, where), atol=1e-11)


def test_defaults():
    x, z = signal(3, 5, 6, 2)
    (y,) = run_op("DFT", [x], opset=20)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.fft(z, axis=2), atol=1e-11)
    (y,) = run_op("DFT", [x], opset=17)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.fft(z, axis=1), atol=1e-11)
    (y,) = run_op("DFT", [x], opset=17, inverse=1, onesided=1)
    np.testing.assert_allclose(y[..., 0], np.fft.irfft(z, axis=1), atol=1e-11)


def test_smooth_lengths():
    for least in (1, 7, 1041, 4097):
        size = _smooth_length(least)
        assert least <= size < 2 * least
        for p in (2, 3, 5):
            while size % p == 0:
                size //= p
        assert size == 1


def test_what_dft_refuses():
    with pytest.raises(ValueError, match="takes a real signal"):
        run_op("DFT", [uniform(1, 4, 2)], opset=20, onesided=1)
    with pytest.raises(ValueError, match="last axis of size 1"):
        run_op("DFT", [uniform(1, 4, 3)], opset=20)
    with pytest.raises(ValueError, match="must be positive"):
        run_op("DFT", [uniform(1, 4, 1), np.int64(0)], opset=20, constants=[1])
    with pytest.raises(ValueError, match="cannot run along the last axis"):
        run_op("DFT", [uniform(1, 4, 1), None, np.int64(-1)], opset=20, constants=[2])


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("frame", [16, 100])
@pytest.mark.parametrize("parts,onesided", [(1, 1), (1, 0), (2, 0)])
def test_stft(frame, parts, onesided, fed):
    x, z = signal(2, 333, parts)
    window = RNG.standard_normal(frame)
    inputs = [x, np.int64(7), window]
    constants = [1] if fed else [1, 2]
    (y,) = run_op("STFT", inputs, constants=constants, onesided=onesided)
    frames = np.stack([z[:, i : i + frame] * window for i in range(0, 333 - frame + 1, 7)], 1)
    expected = np.fft.rfft(frames) if onesided else np.fft.fft(frames)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, atol=1e-10)


def test_stft_without_window():
    x = uniform(1, 128, 1)
    compare("STFT", [x, np.int64(8), None, np.int64(32)], constants=(1, 3))
    (y,) = run_op("STFT", [x, np.int64(8)], constants=[1])
    assert y.shape == (1, 1, 65, 2)


@pytest.mark.parametrize("name", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows(name):
    for periodic in (0, 1):
        for size in (3, 5, 16):
            compare(name, [np.int64(size)], constants=[0], periodic=periodic, tolerance=1e-4)
    compare(name, [np.int32(9)], constants=[0], output_datatype=11, tolerance=1e-6)
    assert run_op(name, [np.int64(1)], constants=[0], periodic=0)[0].shape == (1,)


@pytest.mark.parametrize("bands,length,rate,low,high", [(8, 16, 8192, 0, 4096), (80, 400, 16000, 20, 7600)])
def test_mel_filters(bands, length, rate, low, high):
    inputs = [np.int64(bands), np.int64(length), np.int64(rate), np.float32(low), np.float32(high)]
    compare("MelWeightMatrix", inputs, constants=range(5), tolerance=1e-6)
    with pytest.raises(ValueError, match="beyond half of the rate"):
        run_op("MelWeightMatrix", [*inputs[:4], np.float32(rate)], constants=range(5))
