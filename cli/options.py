"""Flags that several commands share, and what they mean for a session."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from cli.errors import BadInput
from tinyinfer.backends.qcom.options import AUTO, FP16, PRECISIONS
from tinyinfer.errors import TinyInferError

if TYPE_CHECKING:
    from tinyinfer.limits import Limits
    from tinyinfer.runtime.session import InferenceSession
    from tinyinfer.runtime.session_options import SessionOptions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


verbose_option = click.option("-v", "--verbose", count=True, help="Say more; twice shows tracebacks.")
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout.")


@dataclass
class SessionChoice:
    """The session-related flags of one call."""

    model: str
    devices: tuple[str, ...] = ()
    device_options: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    threads: int = 0
    unfused: bool = False
    max_memory: str = ""
    precision: str = AUTO
    input_shapes: dict[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        if self.precision == FP16:
            refuse_halves(self.devices or ("CPU",))
        self.input_shapes = {}
        for name, shape in map(parse_shape, self.shapes):
            if name in self.input_shapes:
                raise BadInput(f"--shape {name}: given twice")
            self.input_shapes[name] = shape

    def options(self) -> SessionOptions:
        """Session options that compile for the shapes of --shape."""
        from tinyinfer.runtime.session_options import GraphOptimizationLevel, SessionOptions

        options = SessionOptions(intra_op_num_threads=self.threads)
        if self.unfused:
            options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, shape in self.input_shapes.items():
            options.add_input_shape(name, shape)
        return options

    def open(self, devices: tuple[str, ...] | None = None) -> InferenceSession:
        """The session; BadInput for a device that is not there, else InferenceSession's errors."""
        from tinyinfer.backends.registry import first_available
        from tinyinfer.bundle.recognise import is_bundle
        from tinyinfer.runtime.session import InferenceSession

        names = list(self.devices if devices is None else devices)
        options = self.parsed_options(names)
        if is_bundle(self.model):
            try:
                chosen = [(name, options) for name in names]
                return InferenceSession(self.model, self.options(), chosen, limits=self.limits())
            except ValueError as error:
                if isinstance(error, TinyInferError):
                    raise
                raise BadInput(str(error)) from None
        if names:
            try:
                names = [first_available(names).name]
            except ValueError as error:
                raise BadInput(str(error)) from None
        given = [(name, options) for name in names] or None
        return InferenceSession(self.model, self.options(), providers=given, limits=self.limits())

    def parsed_options(self, devices: Sequence[str]) -> dict[str, str]:
        """--device-option as a dict; BadInput where it is none, or none of the devices has options."""
        from tinyinfer.backends.registry import is_known, takes_options

        options: dict[str, str] = {}
        for text in self.device_options:
            name, equals, value = text.partition("=")
            if not name or not equals:
                raise BadInput(f"--device-option {text!r}: expected NAME=VALUE, for example priority=low")
            options[name] = value
        if self.precision != AUTO and any(map(_stores_halves, devices)):
            options["precision"] = self.precision
        try:
            taken = any(is_known(name) and takes_options(name) for name in devices)
        except ValueError as error:
            raise BadInput(str(error)) from None
        if self.device_options and not taken:
            raise BadInput("--device-option: no device that was named with --device has options; QCOM has")
        return options

    def limits(self) -> Limits:
        """The limits on the model; BadInput for a --max-memory that is no size."""
        from tinyinfer.limits import Limits

        return Limits(max_bytes=parse_size("--max-memory", self.max_memory)) if self.max_memory else Limits()

    @property
    def title(self) -> str:
        """The model's file name."""
        return os.path.basename(self.model)


@dataclass
class PictureChoice:
    """The picture flags of one call; None means the default for the model at hand."""

    layout: str | None = None
    mean: str | None = None
    std: str | None = None
    scale: float | None = None
    fit: str | None = None
    invert: bool = False


@dataclass
class InputChoice:
    """The input flags of one call: NAME=FILE texts, files that name no input, the seed, and the picture
    flags.
    """

    inputs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    seed: int = 0
    picture: PictureChoice = field(default_factory=PictureChoice)


def _packed(name: str, make: Callable[..., Any], *options: Decorator) -> Decorator:
    """Options whose values reach the command as one argument `name`, made by `make` from keywords."""
    keys = [parameter.name for parameter in _parameters(options)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(**arguments: Any) -> Any:
            arguments[name] = make(**{key: arguments.pop(key) for key in keys if key})
            return function(**arguments)

        decorated: Callable[..., Any] = wrapped
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _parameters(options: tuple[Decorator, ...]) -> list[click.Parameter]:
    def probe() -> None:
        pass

    for option in options:
        option(probe)
    return probe.__click_params__  # type: ignore[attr-defined]


def _input_choice(files: tuple[str, ...], inputs: tuple[str, ...], seed: int, **picture: Any) -> InputChoice:
    return InputChoice(inputs, files, seed, PictureChoice(**picture))


session_options = _packed(
    "choice",
    SessionChoice,
    click.argument("model", type=click.Path()),
    click.option(
        "--device",
        "devices",
        multiple=True,
        metavar="NAME",
        help="Device to run on; repeat it to name others to take where it is absent.",
    ),
    click.option(
        "--device-option",
        "device_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Option of the device (repeatable). QCOM: performance and priority are high, normal, low or"
        " default, recording is on or off.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=AUTO,
        show_default=True,
        help="What QCOM stores between kernels: fp16 are halves, fp32 floats, auto halves where they are"
        " exact enough; sums are floats. Other devices take the model's types: auto or fp32.",
    ),
    click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME:1x3x224x224",
        help="Shape of an input whose dimensions are open (repeatable).",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Threads; 0 takes all cores.",
    ),
    click.option("--unfused", is_flag=True, help="One kernel per op: no fusion."),
    click.option(
        "--max-memory",
        default="",
        metavar="SIZE",
        help="Most memory of the compiled model (512M, 4G) [default: the machine's].",
    ),
)
"""MODEL --device --device-option --precision --shape --threads --unfused --max-memory, as the argument
`choice`."""

input_options = _packed(
    "inputs",
    _input_choice,
    click.argument("files", nargs=-1, type=click.Path(), metavar="[PICTURE | ARRAY]..."),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=FILE",
        help="Input from a .npy, .npz, .pb or picture file, or `random` (repeatable).",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random inputs."
    ),
    click.option(
        "--layout",
        type=click.Choice(["NCHW", "NHWC"], case_sensitive=False),
        help="Axis order of pictures in the model; the input's shape tells it in most cases.",
    ),
    click.option("--mean", metavar="R,G,B", help="Subtracted from pictures, after --scale."),
    click.option("--std", metavar="R,G,B", help="What pictures are divided by, after --mean."),
    click.option("--scale", type=float, help="Factor on pixel values 0…255 [default: 1/255]."),
    click.option(
        "--fit",
        type=click.Choice(["stretch", "crop"]),
        help="How pictures get the model's size: stretched, or the middle cut out.",
    ),
    click.option("--invert", is_flag=True, help="Swap black and white of pictures."),
)
"""FILES --input --seed and what is done to pictures, as the argument `inputs`."""


def refuse_halves(devices: Sequence[str]) -> None:
    """BadInput where halves are asked for and one of the devices does not store them."""
    for name in devices:
        if not _stores_halves(name):
            raise BadInput(
                f"--precision fp16: {name} takes float32 as it is (fp32); QCOM is the device that"
                " stores halves"
            )


def _stores_halves(name: str) -> bool:
    return name.partition(":")[0].upper() == "QCOM"


def parse_size(flag: str, text: str) -> int:
    """A number of bytes, with a K, M, G or T for powers of 1024; BadInput otherwise."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise BadInput(f"{flag} takes a size like 512M or 4G, not {text[:40]!r}")
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`name:1x3x224x224` as a name and sizes; `name:` is rank 0. BadInput for anything else."""
    name, separator, sizes = text.rpartition(":")
    words = [] if sizes == "" else sizes.split("x")
    if not separator or not name or not all(word.isascii() and word.isdigit() for word in words):
        raise BadInput(f"--shape {text!r}: expected NAME:SIZExSIZE…, for example input:1x3x224x224")
    return name, tuple(map(int, words))


def parse_numbers(flag: str, text: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as floats, as many as one of `counts`. BadInput for anything else."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise BadInput(f"{flag} {text!r}: expected numbers with commas between, as 0.5,0.5,0.5") from None
    if not all(map(math.isfinite, numbers)):
        raise BadInput(f"{flag} {text!r}: expected finite numbers")
    if len(numbers) not in counts:
        expected = " or ".join(map(str, counts))
        raise BadInput(f"{flag} {text!r}: {len(numbers)} numbers given, {expected} expected")
    return numbers
