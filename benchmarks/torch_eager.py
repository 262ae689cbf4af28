"""OpenCL against PyTorch, eager, on one GPU: the same models, feeds and weights.

usage: python -m benchmarks.torch_eager MODEL.onnx … [--device opencl:0] [--runs N]

PyTorch runs a model node by node with its own functions, in float32 with TF32 allowed, without
gradients. Nodes that depend on constants only are computed before; GELU and GRU are PyTorch's own.

ours     median milliseconds of a run: feeds to the device, all launches, results back
device   of it, the kernels' own times
PyTorch  the same of PyTorch: feeds to the device, all nodes, results back
there    with the feeds on the device already and the results left there
ratio    PyTorch / ours
error    the largest difference between the two, relative to the output's range

Needs torch with CUDA. Exit status 1 if a model failed or differed by more than 2e-2 (TF32 has 10 bits).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.opencl import WARM_SECONDS, feeds_of, median_seconds
from tinyinfer import InferenceSession

TOLERANCE = 2e-2


@dataclass
class Step:
    """A node: its function, and the names of what it reads and computes."""

    function: Callable[..., Any]
    inputs: Sequence[str]
    outputs: Sequence[str]


class TorchModel:
    """An ONNX model whose nodes PyTorch runs one after the other.

    Raises NotImplementedError, in one line, for a node that PyTorch's side has no function for.
    """

    def __init__(self, path: Path, device: str):
        import torch

        self.torch, self.device = torch, device
        graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
        self.shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
        self.constants: dict[str, Any] = {
            t.name: self._tensor(numpy_helper.to_array(t)) for t in graph.initializer
        }
        self.inputs = [i.name for i in graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in graph.output]
        self.steps: list[Step] = []
        with torch.inference_mode():
            for nodes in _together(list(graph.node), set(self.outputs)):
                self._add(nodes)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs for tensors on the device."""
        values = {"": None, **self.constants, **feeds}
        with self.torch.inference_mode():
            for step in self.steps:
                made = step.function(*[values[name] for name in step.inputs])
                if len(step.outputs) == 1:
                    values[step.outputs[0]] = made
                else:
                    values.update(zip(step.outputs, made))
        return [values[name] for name in self.outputs]

    def run_arrays(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for arrays, as arrays."""
        return [y.cpu().numpy() for y in self.run({name: self._tensor(x) for name, x in feeds.items()})]

    def tensors(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {name: self._tensor(x) for name, x in feeds.items()}

    def _tensor(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(np.array(array)).to(self.device)

    def _add(self, nodes: list[onnx.NodeProto]) -> None:
        """A step for nodes; what depends on constants only is computed now."""
        node = nodes[-1]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            self.constants[node.output[0]] = self._tensor(numpy_helper.to_array(attributes["value"]))
            return
        if node.op_type == "Shape" and all(self.shapes.get(node.input[0], [0])):
            self.constants[node.output[0]] = self._tensor(np.array(self.shapes[node.input[0]], np.int64))
            return
        if len(nodes) > 1:
            step = Step(self.torch.nn.functional.gelu, nodes[0].input[:1], node.output)
        else:
            if node.op_type not in OPS:
                raise NotImplementedError(f"{node.op_type} ({node.name}) has no function of PyTorch here")
            step = Step(OPS[node.op_type](self, node, attributes), node.input, node.output)
        if all(not name or name in self.constants for name in step.inputs):
            made = step.function(*[self.constants.get(name) for name in step.inputs])
            self.constants.update(zip(step.outputs, made if len(step.outputs) > 1 else [made]))
            return
        self.steps.append(step)

    def numbers(self, name: str) -> list[int]:
        """A constant's elements on the host."""
        if name not in self.constants:
            raise NotImplementedError(f"{name!r} is no constant, and sizes of PyTorch's side must be")
        return [int(x) for x in self.constants[name].flatten().tolist()]


def _together(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[list[onnx.NodeProto]]:
    """The nodes one by one, but those of a GELU, x / sqrt 2, erf, + 1, * x, * 0.5, as one list."""
    readers = Counter(name for node in nodes for name in node.input)
    follower = {name: node for node in nodes for name in node.input if readers[name] == 1}
    gelus: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        chain, wanted = [node], ("Div", "Erf", "Add", "Mul", "Mul")
        while len(chain) < 5 and chain[-1].output[0] in follower and chain[-1].output[0] not in outputs:
            chain.append(follower[chain[-1].output[0]])
        if tuple(n.op_type for n in chain) == wanted and node.input[0] in chain[3].input:
            gelus[chain[-1].output[0]] = chain
    inside = {id(n) for chain in gelus.values() for n in chain[:-1]}
    return [gelus.get(n.output[0], [n]) for n in nodes if id(n) not in inside]


# ---- one function a kind of node: (model, node, attributes) -> function of tensors


def _conv(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    functional = model.torch.nn.functional
    rank = model.constants[node.input[1]].dim() - 2
    pads = at.get("pads", [0] * 2 * rank)
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    stride, dilation = at.get("strides", [1] * rank), at.get("dilations", [1] * rank)
    group, symmetric = at.get("group", 1), pads[:rank] == pads[rank:]
    around = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]

    def run(x: Any, w: Any, b: Any = None) -> Any:
        if symmetric:
            return function(x, w, b, stride, pads[:rank], dilation, group)
        return function(functional.pad(x, around), w, b, stride, 0, dilation, group)

    return run


def _batch_norm(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    function, epsilon = model.torch.nn.functional.batch_norm, at.get("epsilon", 1e-5)
    return lambda x, scale, bias, mean, var: function(x, mean, var, scale, bias, False, 0.0, epsilon)


def _max_pool(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    rank = len(at["kernel_shape"])
    pads = at.get("pads", [0] * 2 * rank)
    if rank != 2 or pads[:rank] != pads[rank:] or at.get("ceil_mode"):
        raise NotImplementedError(f"MaxPool ({node.name}) with these pads or this rank")
    function = model.torch.nn.functional.max_pool2d
    return lambda x: function(x, at["kernel_shape"], at.get("strides"), pads[:rank])


def _gemm(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    if at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0 or at.get("transA") or not at.get("transB"):
        raise NotImplementedError(f"Gemm ({node.name}) that is no linear layer")
    return model.torch.nn.functional.linear


def _gru(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    """One direction, as torch.nn.GRU; ONNX orders gates update, reset, new and PyTorch reset, update, new."""
    torch = model.torch
    plain = at.get("linear_before_reset") == 1 and at.get("direction", b"forward") == b"forward"
    if not plain or "activations" in at or any(node.input[4:5]):
        raise NotImplementedError(f"GRU ({node.name}) that is not PyTorch's")
    w, r, b = (model.constants[name][0] for name in node.input[1:4])
    size = at["hidden_size"]
    order = torch.cat([torch.arange(i * size, (i + 1) * size, device=model.device) for i in (1, 0, 2)])
    layer = torch.nn.GRU(w.shape[1], size).to(model.device)
    for parameter, value in zip(layer.parameters(), (w[order], r[order], b[order], b[order + 3 * size])):
        parameter.copy_(value)
    layer.flatten_parameters()

    def run(x: Any, *rest: Any) -> Any:
        states, last = layer(x, rest[4] if len(rest) > 4 else None)
        return states.unsqueeze(1), last

    return run


def _slice(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    starts, ends = model.numbers(node.input[1]), model.numbers(node.input[2])
    axes = model.numbers(node.input[3]) if len(node.input) > 3 else list(range(len(starts)))
    steps = model.numbers(node.input[4]) if len(node.input) > 4 else [1] * len(starts)
    cut = {axis: slice(a, b, s) for axis, a, b, s in zip(axes, starts, ends, steps)}
    return lambda x, *_: x[tuple(cut.get(i, slice(None)) for i in range(x.dim()))]


def _sizes_of(name: str) -> Callable[..., Any]:
    """Reshape and Expand, whose second input is a constant."""

    def make(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
        sizes = model.numbers(node.input[1])
        if name == "expand":
            return lambda x, _: x.expand(
                [n if n > 1 else x.shape[i - len(sizes)] for i, n in enumerate(sizes)]
            )
        return lambda x, _: x.reshape([n or x.shape[i] for i, n in enumerate(sizes)])

    return make


def _axes(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> list[int]:
    return list(at["axes"]) if "axes" in at else model.numbers(node.input[1])


def _unsqueeze(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    (axis,) = _axes(model, node, at)
    return lambda x, *_: x.unsqueeze(axis)


def _squeeze(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    axes = tuple(_axes(model, node, at))
    return lambda x, *_: x.squeeze(axes)


def _mean(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    axes, keep = tuple(_axes(model, node, at)), bool(at.get("keepdims", 1))
    return lambda x, *_: x.mean(axes, keep)


def _gather(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    axis = at.get("axis", 0)
    if node.input[1] in model.constants and model.constants[node.input[1]].dim() == 0:
        (number,) = model.numbers(node.input[1])
        return lambda x, _: x.select(axis, number)
    raise NotImplementedError(f"Gather ({node.name}) of other than one constant position")


def _cast(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    name = np.dtype(helper.tensor_dtype_to_np_dtype(at["to"])).name
    dtype = getattr(model.torch, name)
    return lambda x: x.to(dtype)


def _constant_of_shape(model: TorchModel, node: onnx.NodeProto, at: dict[str, Any]) -> Callable[..., Any]:
    value = model._tensor(numpy_helper.to_array(at["value"]) if "value" in at else np.zeros(1, np.float32))
    sizes = model.numbers(node.input[0])
    return lambda _: value.expand(sizes) if sizes else value[0]


def _function(name: str) -> Callable[..., Any]:
    """A function of torch that takes a node's inputs as they are."""
    return lambda model, node, at: getattr(model.torch, name)


OPS: dict[str, Callable[[TorchModel, onnx.NodeProto, dict[str, Any]], Callable[..., Any]]] = {
    "Add": _function("add"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _function("clamp"),
    "Concat": lambda model, node, at: lambda *x: model.torch.cat(x, at["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _function("div"),
    "Elu": lambda model, node, at: lambda x: model.torch.nn.functional.elu(x, at.get("alpha", 1.0)),
    "Equal": _function("eq"),
    "Erf": _function("erf"),
    "Expand": _sizes_of("expand"),
    "Flatten": lambda model, node, at: lambda x: x.flatten(at.get("axis", 1)),
    "GRU": _gru,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda model, node, at: lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "Identity": lambda model, node, at: lambda x: x,
    "MatMul": _function("matmul"),
    "MaxPool": _max_pool,
    "Mul": _function("mul"),
    "ReduceMean": _mean,
    "Relu": _function("relu"),
    "Reshape": _sizes_of("reshape"),
    "Sigmoid": _function("sigmoid"),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _function("sub"),
    "Transpose": lambda model, node, at: lambda x: x.permute(at["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": _function("where"),
}


def torch_seconds(model: TorchModel, feeds: Mapping[str, np.ndarray], runs: int) -> tuple[float, float]:
    """Median seconds of a run of PyTorch with arrays, and with tensors that stay on the device."""
    wait = model.torch.cuda.synchronize if model.device == "cuda" else lambda: None
    tensors = model.tensors(feeds)

    def on_device() -> None:
        model.run(tensors)
        wait()

    def median(run: Callable[[], Any]) -> float:
        until = time.perf_counter() + WARM_SECONDS
        while time.perf_counter() < until:
            run()
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return median(lambda: model.run_arrays(feeds)), median(on_device)


def largest_difference(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Relative to the range of the output that has it."""
    return max(
        float(np.abs(np.asarray(a, np.float64) - b).max()) / max(float(np.ptp(b)), 1e-30)
        for a, b in zip(got, wanted, strict=True)
        if b.size
    )


def measure(path: Path, chosen: argparse.Namespace) -> bool:
    """Print the figures of one model; whether the two sides agree."""
    session = InferenceSession(str(path), providers=[chosen.device])
    feeds = feeds_of(session)
    results = session.run(None, feeds)
    model = TorchModel(path, chosen.torch_device)
    error = largest_difference(model.run_arrays(feeds), results)
    ours = median_seconds(session, feeds, chosen.runs)
    device = sum(t.seconds for t in session.profile(feeds, max(3, chosen.runs // 10)))
    theirs, there = torch_seconds(model, feeds, chosen.runs)
    print(
        f"{path.stem:28s} {ours * 1e3:8.3f} {device * 1e3:8.3f} {theirs * 1e3:8.3f} {there * 1e3:8.3f} "
        f"{theirs / ours:6.2f} {error:9.1e}",
        flush=True,
    )
    return error <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", default="OPENCL")
    parser.add_argument("--torch-device", default="cuda", help="cuda, or cpu to try the comparison out")
    parser.add_argument("--runs", type=int, default=50)
    chosen = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: install torch with CUDA")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = False
    where = torch.cuda.get_device_name() if chosen.torch_device == "cuda" else "the processor"
    print(f"PyTorch {torch.__version__}, eager, float32 with TF32, on {where}")
    names = ("ours", "device", "PyTorch", "there", "ratio", "error")
    widths = (8, 8, 8, 8, 6, 9)
    print(f"{'model':28s} " + " ".join(f"{n:>{w}s}" for n, w in zip(names, widths)))
    fine = True
    for path in chosen.models:
        try:
            fine &= measure(path, chosen)
        except Exception as error:  # one model's failure must not hide the others' figures
            print(f"{path.stem:28s} failed: {error}", flush=True)
            fine = False
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
