"""GRU, LSTM and RNN as loops over their static number of time steps; few steps are unrolled.

The input projection of all steps is one matrix product outside of the loop; each step then is one product of
the hidden state, and elementwise nodes. Source: ONNX RNN, GRU, LSTM (layouts, gate orders, equations).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import RECURRENT, onnx_op
from tinyinfer.frontend.onnx.ops.activation import elu, hard_sigmoid, leaky_relu, relu, softplus
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.matmul import matmul
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Node

Activation = Callable[[Node], Node]

UNROLLED = 4
"""Steps up to which a recurrence is unrolled: kernels of neighbouring steps may then share a launch."""


def _thresholded(x: Node, alpha: float) -> Node:
    return elementwise("WHERE", elementwise("CMPLT", like(alpha, x), x), x, like(0, x))


def _affine(x: Node, alpha: float, beta: float) -> Node:
    return elementwise("ADD", elementwise("MUL", x, like(alpha, x)), like(beta, x))


def _scaled_tanh(x: Node, alpha: float, beta: float) -> Node:
    return elementwise("MUL", elementwise("TANH", elementwise("MUL", x, like(beta, x))), like(alpha, x))


def _softsign(x: Node) -> Node:
    return elementwise("DIV", x, elementwise("ADD", like(1, x), elementwise("ABS", x)))


# name -> (function, defaults of alpha and beta as far as it takes them)
ACTIVATIONS: dict[str, tuple[Callable[..., Node], tuple[float, ...]]] = {
    "relu": (relu, ()),
    "tanh": (lambda x: elementwise("TANH", x), ()),
    "sigmoid": (lambda x: elementwise("SIGMOID", x), ()),
    "softsign": (_softsign, ()),
    "softplus": (softplus, ()),
    "elu": (elu, (1.0,)),
    "leakyrelu": (leaky_relu, (0.01,)),
    "thresholdedrelu": (_thresholded, (1.0,)),
    "affine": (_affine, (1.0, 0.0)),
    "scaledtanh": (_scaled_tanh, (1.0, 1.0)),
    "hardsigmoid": (hard_sigmoid, (0.2, 0.5)),
}


@dataclass(frozen=True)
class Recurrence:
    """What the three ops share: sizes, and the inputs by time, [steps, batch, …]."""

    ctx: NodeContext
    x: Node
    hidden: int
    directions: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    lengths: np.ndarray | Node | None
    batch_first: bool

    @property
    def steps(self) -> int:
        return self.x.shape[0]

    @property
    def batch(self) -> int:
        return self.x.shape[1]

    def clipped(self, x: Node) -> Node:
        """`x` within -clip … clip."""
        if self.clip is None:
            return x
        return elementwise("MIN", elementwise("MAX", x, like(-self.clip, x)), like(self.clip, x))


def _prepare(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None,
    lengths: Node | None,
    gates: int,
    defaults: Sequence[str],
    bias_parts: int,
) -> Recurrence:
    """Check every shape and attribute."""
    ctx.floating(x)
    ctx.same_dtype(x, w, r, b)
    ctx.require(len(x.shape) == 3, f"X must be of rank 3, not {list(x.shape)}")
    batch_first = bool(ctx.integer("layout", 0, choices=(0, 1)))
    x = build.permute(x, [1, 0, 2]) if batch_first else x
    steps, batch, width = x.shape
    direction = ctx.string("direction", "forward", ("forward", "reverse", "bidirectional"))
    directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    ctx.require(len(w.shape) == 3 and len(r.shape) == 3, "W and R must be of rank 3")
    hidden = ctx.integer("hidden_size", r.shape[2], minimum=1)
    count = len(directions)
    ctx.require(
        w.shape == (count, gates * hidden, width),
        f"W must be {[count, gates * hidden, width]}, not {list(w.shape)}",
    )
    ctx.require(
        r.shape == (count, gates * hidden, hidden),
        f"R must be {[count, gates * hidden, hidden]}, not {list(r.shape)}",
    )
    ctx.require(
        b is None or b.shape == (count, bias_parts * hidden), f"B must be {[count, bias_parts * hidden]}"
    )
    clip = ctx.number("clip")
    ctx.require(clip is None or clip > 0, f"the attribute 'clip' must be positive, not {clip}")
    return Recurrence(
        ctx,
        x,
        hidden,
        directions,
        _activations(ctx, defaults, count),
        clip,
        _lengths(ctx, lengths, steps, batch),
        batch_first,
    )


def _lengths(ctx: NodeContext, lengths: Node | None, steps: int, batch: int) -> np.ndarray | Node | None:
    if lengths is None:
        return None
    ctx.require(
        lengths.shape == (batch,), f"sequence_lens must be of shape [{batch}], not {list(lengths.shape)}"
    )
    known = ctx.known(lengths)
    if known is None:
        return lengths
    ctx.require(bool(((known >= 0) & (known <= steps)).all()), f"sequence_lens must lie in 0 to {steps}")
    return None if bool((known == steps).all()) else known


def _activations(
    ctx: NodeContext, defaults: Sequence[str], directions: int
) -> tuple[tuple[Activation, ...], ...]:
    names = ctx.strings("activations") or list(defaults) * directions
    ctx.require(
        len(names) == len(defaults) * directions,
        f"the attribute 'activations' must name {len(defaults) * directions} functions, not {len(names)}",
    )
    alphas, betas = list(ctx.numbers("activation_alpha", [])), list(ctx.numbers("activation_beta", []))
    made = []
    for name in names:
        found = ACTIVATIONS.get(name.lower())
        if found is None:
            ctx.fail(f"the activation '{name}' is not one of {sorted(ACTIVATIONS)}")
        function, values = found
        # each list is consumed by the functions that take such a parameter, in order
        chosen = [(source.pop(0) if source else value) for value, source in zip(values, (alphas, betas))]
        made.append(_bound(function, chosen))
    size = len(defaults)
    return tuple(tuple(made[i * size : (i + 1) * size]) for i in range(directions))


def _bound(function: Callable[..., Node], parameters: Sequence[float]) -> Activation:
    return lambda x: function(x, *parameters)


def _direction(x: Node, number: int) -> Node:
    """Entry `number` of the leading axis of a parameter."""
    starts = [number, *[0] * (len(x.shape) - 1)]
    return build.reshape(build.shrink(x, starts, [number + 1, *x.shape[1:]]), x.shape[1:])


def _part(x: Node, number: int, size: int) -> Node:
    """Columns `number` · size … of the last axis."""
    starts, stops = [0] * len(x.shape), list(x.shape)
    starts[-1], stops[-1] = number * size, (number + 1) * size
    return build.shrink(x, starts, stops)


def _parts(x: Node, count: int) -> list[Node]:
    return [_part(x, i, x.shape[-1] // count) for i in range(count)]


def _transposed(x: Node) -> Node:
    return build.permute(x, [1, 0])


def _add(*terms: Node) -> Node:
    total = terms[0]
    for term in terms[1:]:
        total = build.apply("ADD", total, term)
    return total


def _projection(rec: Recurrence, w: Node, bias: Node | None) -> Node:
    """x W^T + bias for all steps at once: [steps, batch, gates · hidden]."""
    flat = build.reshape(rec.x, [rec.steps * rec.batch, rec.x.shape[2]])
    product = matmul(flat, _transposed(w))
    product = product if bias is None else _add(product, bias)
    return build.reshape(product, [rec.steps, rec.batch, w.shape[0]])


def _at(x: Node, step: int) -> Node:
    """Entry `step` of the leading axis."""
    return _direction(x, step)


def _initial(rec: Recurrence, state: Node | None, number: int, count: int) -> Node:
    if state is None:
        return build.full(0.0, [rec.batch, rec.hidden], rec.x.dtype)
    if rec.batch_first:
        state = build.permute(state, [1, 0, 2])
    rec.ctx.require(
        state.shape == (count, rec.batch, rec.hidden),
        f"an initial state must be {[count, rec.batch, rec.hidden]}, not {list(state.shape)}",
    )
    return _direction(state, number)


def _active(rec: Recurrence, step: int) -> Node | None:
    """[batch, 1] of bool: which samples have a step `step`; None if all do."""
    if rec.lengths is None:
        return None
    if isinstance(rec.lengths, np.ndarray):
        mask = rec.lengths > step
        return None if mask.all() else build.constant(mask.reshape(-1, 1))
    lengths = build.reshape(rec.lengths, [rec.batch, 1])
    return elementwise("CMPLT", like(step, lengths), lengths)


Step = Callable[[Node, tuple[Node, ...]], tuple[Node, ...]]


def _run(
    rec: Recurrence, projected: Node, states: tuple[Node, ...], step: Step, backwards: bool
) -> tuple[Node, tuple[Node, ...]]:
    """The outputs of all steps in time order, [steps, batch, hidden], and the final states; states[0] is the
    output."""
    if rec.steps > UNROLLED:
        return _loop(rec, projected, states, step, backwards)
    outputs: list[Node] = [states[0]] * rec.steps
    for t in reversed(range(rec.steps)) if backwards else range(rec.steps):
        new = step(_at(projected, t), states)
        states, outputs[t] = _masked(new, states, _active(rec, t))
    rows = [build.reshape(o, [1, rec.batch, rec.hidden]) for o in outputs]
    empty = build.full(0.0, [0, rec.batch, rec.hidden], rec.x.dtype)
    return build.concat(rows, 0) if rows else empty, states


def _masked(
    new: tuple[Node, ...], old: tuple[Node, ...], active: Node | None
) -> tuple[tuple[Node, ...], Node]:
    """States and output of a step: behind the end of a sequence the state stays and the output is zero."""
    if active is None:
        return new, new[0]
    states = tuple(build.apply("WHERE", active, n, s) for n, s in zip(new, old))
    return states, build.apply("WHERE", active, new[0], like(0, new[0]))


def _loop(
    rec: Recurrence, projected: Node, states: tuple[Node, ...], step: Step, backwards: bool
) -> tuple[Node, tuple[Node, ...]]:
    lengths = build.constant(rec.lengths) if isinstance(rec.lengths, np.ndarray) else rec.lengths

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        old = tuple(carried)
        new = step(rows[0], old)
        active = None
        if lengths is not None:
            t = elementwise("SUB", build.scalar(rec.steps - 1, "int64"), number) if backwards else number
            wide = build.reshape(build.cast(lengths, "int64"), [rec.batch, 1])
            active = build.apply("CMPLT", t, wide)
        kept, output = _masked(new, old, active)
        return BodyResults(kept, [output])

    made = loop(body, states, rec.steps, [(projected, backwards)], lambda _: backwards)
    return made.stacked[0], tuple(made.final)


def _assemble(rec: Recurrence, per_direction: Sequence[tuple[Node, tuple[Node, ...]]]) -> list[Node]:
    """Y [steps, directions, batch, hidden] and final states [directions, batch, hidden], by the layout."""
    y = build.concat(
        [build.reshape(o, [rec.steps, 1, rec.batch, rec.hidden]) for o, _ in per_direction], 1
    )
    finals = []
    for number in range(len(per_direction[0][1])):
        stacked = [build.reshape(states[number], [1, rec.batch, rec.hidden]) for _, states in per_direction]
        final = build.concat(stacked, 0)
        finals.append(build.permute(final, [1, 0, 2]) if rec.batch_first else final)
    return [build.permute(y, [2, 0, 1, 3]) if rec.batch_first else y, *finals]


@onnx_op("RNN", tolerance=RECURRENT)
def rnn(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None = None,
    lengths: Node | None = None,
    initial: Node | None = None,
) -> list[Node]:
    """H = f(X W^T + H R^T + biases), step by step."""
    rec = _prepare(ctx, x, w, r, b, lengths, 1, ("Tanh",), 2)
    results = []
    for d, backwards in enumerate(rec.directions):
        bias = None if b is None else ctx.folded(_add(*_parts(_direction(b, d), 2)))
        projected = _projection(rec, _direction(w, d), bias)
        recurrent = _transposed(_direction(r, d))
        (f,) = rec.activations[d]

        def step(
            now: Node, states: tuple[Node, ...], recurrent: Node = recurrent, f: Activation = f
        ) -> tuple[Node, ...]:
            return (f(rec.clipped(_add(now, matmul(states[0], recurrent)))),)

        start = (_initial(rec, initial, d, len(rec.directions)),)
        results.append(_run(rec, projected, start, step, backwards))
    return _assemble(rec, results)


@onnx_op("GRU", tolerance=RECURRENT)
def gru(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None = None,
    lengths: Node | None = None,
    initial: Node | None = None,
) -> list[Node]:
    """Gated recurrent unit; gates in the order update, reset, hidden."""
    rec = _prepare(ctx, x, w, r, b, lengths, 3, ("Sigmoid", "Tanh"), 6)
    after = ctx.flag("linear_before_reset")
    results = []
    for d, backwards in enumerate(rec.directions):
        folded, inner = (None, None) if b is None else _gru_biases(ctx, _direction(b, d), after)
        projected = _projection(rec, _direction(w, d), folded)
        recurrent = _transposed(_direction(r, d))
        step = _gru_step(rec, recurrent, inner, after, rec.activations[d])
        start = (_initial(rec, initial, d, len(rec.directions)),)
        results.append(_run(rec, projected, start, step, backwards))
    return _assemble(rec, results)


def _gru_biases(ctx: NodeContext, b: Node, after: bool) -> tuple[Node, Node | None]:
    """The bias of all input projections, and what linear_before_reset keeps inside the reset."""
    wz, wr, wh, rz, rr, rh = _parts(b, 6)
    joined = build.concat([_add(wz, rz), _add(wr, rr), wh if after else _add(wh, rh)], 0)
    return ctx.folded(joined), rh if after else None


def _gru_step(
    rec: Recurrence,
    recurrent: Node,
    inner_bias: Node | None,
    after: bool,
    activations: tuple[Activation, ...],
) -> Step:
    f, g = activations
    size = rec.hidden
    gates = build.shrink(recurrent, [0, 0], [size, 2 * size])
    candidate = build.shrink(recurrent, [0, 2 * size], [size, 3 * size])

    def step(now: Node, states: tuple[Node, ...]) -> tuple[Node, ...]:
        (hidden,) = states
        z_now, r_now, h_now = _parts(now, 3)
        if after:
            z_in, r_in, h_in = _parts(matmul(hidden, recurrent), 3)
        else:
            z_in, r_in = _parts(matmul(hidden, gates), 2)
        z = f(rec.clipped(_add(z_now, z_in)))
        reset = f(rec.clipped(_add(r_now, r_in)))
        if after:
            inside = elementwise("MUL", reset, h_in if inner_bias is None else _add(h_in, inner_bias))
        else:
            inside = matmul(elementwise("MUL", reset, hidden), candidate)
        new = g(rec.clipped(_add(h_now, inside)))
        # (1 - z) new + z hidden
        return (elementwise("ADD", new, elementwise("MUL", z, elementwise("SUB", hidden, new))),)

    return step


@onnx_op("LSTM", tolerance=RECURRENT)
def lstm(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None = None,
    lengths: Node | None = None,
    initial_h: Node | None = None,
    initial_c: Node | None = None,
    p: Node | None = None,
) -> list[Node]:
    """Long short-term memory; gates in the order input, output, forget, cell; peepholes likewise."""
    return long_short_term_memory(ctx, x, w, r, b, lengths, initial_h, initial_c, p, lambda hidden: hidden)


def long_short_term_memory(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None,
    lengths: Node | None,
    initial_h: Node | None,
    initial_c: Node | None,
    p: Node | None,
    seen: Callable[[Node], Node],
) -> list[Node]:
    """What LSTM's attributes describe; `seen` gives the hidden state as the recurrent product reads it."""
    rec = _prepare(ctx, x, w, r, b, lengths, 4, ("Sigmoid", "Tanh", "Tanh"), 8)
    coupled = ctx.flag("input_forget")
    count = len(rec.directions)
    ctx.require(p is None or p.shape == (count, 3 * rec.hidden), f"P must be {[count, 3 * rec.hidden]}")
    results = []
    for d, backwards in enumerate(rec.directions):
        bias = None if b is None else ctx.folded(_add(*_parts(_direction(b, d), 2)))
        projected = _projection(rec, _direction(w, d), bias)
        recurrent = _transposed(_direction(r, d))
        peepholes = None if p is None else _parts(_direction(p, d), 3)
        step = _lstm_step(rec, recurrent, peepholes, coupled, rec.activations[d], seen)
        start = (_initial(rec, initial_h, d, count), _initial(rec, initial_c, d, count))
        results.append(_run(rec, projected, start, step, backwards))
    return _assemble(rec, results)


def _lstm_step(
    rec: Recurrence,
    recurrent: Node,
    peepholes: list[Node] | None,
    coupled: bool,
    activations: tuple[Activation, ...],
    seen: Callable[[Node], Node],
) -> Step:
    f, g, h = activations

    def peep(gate: Node, number: int, cell: Node) -> Node:
        if peepholes is None:
            return gate
        return _add(gate, build.apply("MUL", cell, peepholes[number]))

    def step(now: Node, states: tuple[Node, ...]) -> tuple[Node, ...]:
        hidden, cell = states
        i_in, o_in, f_in, c_in = _parts(_add(now, matmul(seen(hidden), recurrent)), 4)
        i = f(rec.clipped(peep(i_in, 0, cell)))
        forget = elementwise("SUB", like(1, i), i) if coupled else f(rec.clipped(peep(f_in, 2, cell)))
        new_cell = elementwise(
            "ADD", elementwise("MUL", forget, cell), elementwise("MUL", i, g(rec.clipped(c_in)))
        )
        o = f(rec.clipped(peep(o_in, 1, new_cell)))
        return elementwise("MUL", o, h(new_cell)), new_cell

    return step
