"""What models are for, on real pictures and sounds: a seven, faces, speech, a denoised voice, text."""

import wave

import numpy as np
import pytest

import tinyinfer

pytest.importorskip("PIL")


def session(shared_models, name):
    return tinyinfer.InferenceSession(shared_models / f"{name}.onnx", providers=["CPU"])


def picture(path, size, mode="RGB"):
    from PIL import Image

    return np.asarray(Image.open(path).convert(mode).resize(size), np.float32)


def sound(path):
    with wave.open(str(path)) as file:
        assert file.getframerate() == 16000 and file.getnchannels() == 1 and file.getsampwidth() == 2
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


@pytest.mark.parametrize("name", ["mnist_cntk"])
def test_a_seven(name, shared_models):
    digit = picture(shared_models.parent / "samples" / "mnist_7.jpg", (28, 28), "L")
    model = session(shared_models, name)
    value = model.get_inputs()[0]
    (scores,) = model.run(None, {value.name: digit.reshape(1, 1, 28, 28)})
    assert int(scores.argmax()) == 7


def test_many_faces(shared_models):
    pixels = picture(shared_models.parent / "samples" / "faces_1.jpg", (320, 240))
    model = session(shared_models, "ultraface_rfb_320")
    x = ((pixels - 127) / 128).transpose(2, 0, 1)[None]
    scores, boxes = model.run(None, {"input": x})
    likely = scores[0, :, 1] > 0.7
    from tinyinfer.frontend.onnx.blocks.boxes import non_max_suppression

    rows = non_max_suppression(boxes, scores[:, :, 1][:, None], 100, 0.3, 0.7, False)
    assert likely.sum() > 20 and len(rows) >= 5


def test_the_share_of_speech(shared_models):
    """silero_vad_v5 sees 64 samples of the window before besides each window of 512."""
    samples = sound(shared_models.parent / "samples" / "silero_test.wav")[: 20 * 16000]
    model = session(shared_models, "silero_vad_v5")
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    heard = []
    for start in range(0, len(samples) - 511, 512):
        window = samples[start : start + 512]
        x = np.concatenate([before, window])[None]
        probability, state = model.run(None, {"input": x, "state": state, "sr": np.array(16000)})
        heard.append(float(probability[0, 0]) > 0.5)
        before = window[-64:]
    assert 0.6 < np.mean(heard) < 0.8


def test_a_voice_without_its_noise(shared_models):
    """gtcrn frame by frame gives what its author published: windows of 512, the root of a Hann window."""
    samples = shared_models.parent / "samples"
    noisy, wanted = sound(samples / "gtcrn_mix.wav"), sound(samples / "gtcrn_enh_stream.wav")
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    padded = np.pad(noisy.astype(np.float64), 256, "reflect")
    count = 1 + (len(padded) - 512) // 256
    model = session(shared_models, "gtcrn")
    shapes = {v.name: v.shape for v in model.get_inputs()}
    caches = {name: np.zeros(shapes[name], np.float32) for name in ("conv_cache", "tra_cache", "inter_cache")}
    total = np.zeros(len(padded))
    weight = np.zeros(len(padded))
    for number in range(count):
        place = slice(256 * number, 256 * number + 512)
        spectrum = np.fft.rfft(padded[place] * window)
        mix = np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32).reshape(1, 257, 1, 2)
        enhanced, *after = model.run(None, {"mix": mix, **caches})
        caches = dict(zip(caches, after))
        frame = np.fft.irfft(enhanced[0, :, 0, 0] + 1j * enhanced[0, :, 0, 1])
        total[place] += frame * window
        weight[place] += window**2
    result = (total / np.maximum(weight, 1e-8))[256:-256]
    length = min(len(result), len(wanted))
    error = result[:length] - wanted[:length]
    # the published file has 16-bit samples
    assert np.abs(error).max() < 2e-3 and np.sqrt(np.mean(error**2)) < 1e-4


def test_sixty_four_tokens_with_a_cache(filled_model):
    """Token for token what onnxruntime generates, with a handful of compilations."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path = filled_model("gpt2_6l_384_kv")
    ours = tinyinfer.InferenceSession(path, providers=["CPU"])
    theirs = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [v.name for v in ours.get_inputs()]

    def generate(model):
        ids = np.array([[5, 17, 3]])
        cache = {name: np.zeros((1, 6, 0, 64), np.float32) for name in names[1:]}
        tokens = []
        for _ in range(64):
            logits, *present = model.run(None, {names[0]: ids, **cache})
            tokens.append(int(logits[0, -1].argmax()))
            ids, cache = np.array([[tokens[-1]]]), dict(zip(names[1:], present))
        return tokens

    assert generate(ours) == generate(theirs)
    assert len(ours._program) + len(ours._program.ranges) <= 6
