"""Train the digit classifier and write everything beside this file: digits.onnx, samples/, labels.txt.

usage: python -m models.digits.train [--seed N] [--count N] [--epochs N] [--output FOLDER]

A few minutes on one core. The digits are drawn, not downloaded: the accuracy printed is that on drawn digits
of a seed that training never saw, and says little about any particular person's writing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.digits import network
from models.digits.render import draw

HERE = Path(__file__).resolve().parent
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LARGE_SAMPLES = (4, 8)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pictures [count, 28, 28] and their labels [count], the same for the same seed."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(10, size=count)
    return draw(labels, generator), labels


def accuracy(parameters: network.Parameters, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the pictures whose highest score is their label."""
    parts = np.array_split(images, len(images) // 500 + 1)
    guesses = np.concatenate([network.logits(parameters, part).argmax(axis=1) for part in parts])
    return float((guesses == labels).mean())


def train(seed: int, count: int, epochs: int, batch: int = 100) -> network.Parameters:
    """Parameters after `epochs` passes over `count` pictures, learning rate falling as a half cosine."""
    images, labels = drawn(count, seed)
    generator = np.random.default_rng(seed + 1)
    parameters = network.initial(generator)
    optimizer = network.Adam(parameters)
    steps = epochs * (count // batch)
    for epoch in range(epochs):
        order, losses = generator.permutation(count), []
        for start in range(0, count - batch + 1, batch):
            chosen = order[start : start + batch]
            rate = 0.0015 * (1 + np.cos(np.pi * optimizer.steps / steps)) + 1e-5
            loss, gradients = network.loss_and_gradients(parameters, images[chosen], labels[chosen])
            optimizer.step(gradients, rate)
            losses.append(loss)
        print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}", file=sys.stderr)
    return parameters


def to_onnx(parameters: network.Parameters) -> onnx.ModelProto:
    """The same function as ONNX: "image" [batch, 1, 28, 28] float32 in 0..1 → "logits" [batch, 10]."""
    weights = {name: parameters[name] for name in ("bias1", "bias2", "bias3")}
    for name in ("conv1", "conv2"):
        weights[name] = parameters[name].transpose(3, 2, 0, 1)
    weights["full"] = parameters["full"].transpose(2, 0, 1, 3).reshape(-1, 10)
    nodes = []
    source = "image"
    for number in ("1", "2"):
        nodes += [
            helper.make_node(
                "Conv", [source, "conv" + number, "bias" + number], ["c" + number], "/conv" + number,
                kernel_shape=[3, 3], pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", ["c" + number], ["r" + number], "/relu" + number),
            helper.make_node(
                "MaxPool", ["r" + number], ["p" + number], "/pool" + number,
                kernel_shape=[2, 2], strides=[2, 2],
            ),
        ]  # fmt: skip
        source = "p" + number
    nodes.append(helper.make_node("Flatten", [source], ["flat"], "/flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "full", "bias3"], ["logits"], "/full"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, producer_name="tinyinfer models/digits/train.py", opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def write_samples(folder: Path, seed: int) -> None:
    """One greyscale PNG per digit, of a seed apart from training; some at 56×56, for the reader to scale."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for digit in range(10):
        picture = draw(np.array([digit]), generator, 56 if digit in LARGE_SAMPLES else 28)[0]
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(folder / f"{digit}.png", optimize=True)


def main() -> None:
    """Train, measure on pictures of another seed, and write the files."""
    parser = argparse.ArgumentParser(description="Train the digit classifier.")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--count", type=int, default=60000, help="training pictures")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start = time.perf_counter()
    parameters = train(options.seed, options.count, options.epochs)
    held_out = accuracy(parameters, *drawn(10000, options.seed + 1000))
    options.output.mkdir(parents=True, exist_ok=True)
    onnx.save(to_onnx(parameters), options.output / "digits.onnx")
    write_samples(options.output / "samples", options.seed + 2000)
    (options.output / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    print(f"held-out accuracy {held_out:.4f}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
