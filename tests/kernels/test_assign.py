"""Buffers and layouts of whole graphs: what is copied, what is stored in place, what has a halo."""

import numpy as np
import pytest
from compiled import graph_of

from tinyinfer.ir import build
from tinyinfer.kernels.assign import assign


def array(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def value(*shape, name="x"):
    return build.input_node(name, shape, "float32")


def convolve(x, outputs=16, pad=1, group=1, kernel=3):
    w = array(outputs, x.shape[1] // group, kernel, kernel)
    return build.convolution(x, w, [1, 1], [1, 1], [pad, pad], [pad, pad], group)


def copies(assigned):
    return [k.root for k in assigned.kernels if k.root.op == "COPY"]


def orders_of_copies(assigned):
    """Of copies that are not outputs."""
    made = [assigned.buffers[c] for c in copies(assigned)]
    return [b.order for b in made if b.space == "arena"]


def test_every_kernel_and_load_has_a_buffer():
    y = convolve(build.elementwise("TANH", convolve(value(1, 8, 6, 6))))
    assigned = assign(graph_of(build.concat([y, y], 1)))
    assert len(assigned.kernels) == len(assigned.contractions)
    for kernel in assigned.kernels:
        assert kernel.root in assigned.buffers
        for access in kernel.accesses():
            assert access.value.op == "CONST" or access.value in assigned.buffers


def test_values_are_stored_before_they_are_read():
    y = convolve(build.elementwise("TANH", convolve(value(1, 8, 6, 6))))
    assigned = assign(graph_of(y, build.concat([y, y], 1)))
    known = {n for n, b in assigned.buffers.items() if b.space in ("input", "parameter")}
    for kernel in assigned.kernels:
        for access in kernel.accesses():
            assert access.value.op in ("CONST", "CONCAT") or access.value in known
        known.add(kernel.root)


def test_convolutions_end_channels_last():
    y = convolve(value(1, 8, 6, 6))
    z = convolve(y)
    assigned = assign(graph_of(z))
    stored = y.inputs[0]
    assert stored.shape == (1, 1, 16, 6, 6) and assigned.buffers[stored].order == (0, 1, 3, 4, 2)


def test_padding_becomes_a_halo():
    y = convolve(value(1, 8, 6, 6), pad=0)
    z = convolve(y, pad=1)
    assigned = assign(graph_of(z))
    assert assigned.buffers[y.inputs[0]].halo == [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1]]
    assert not any(a.guards for k in assigned.kernels for a in k.accesses())


def test_two_fills_do_not_share_a_halo():
    y = convolve(value(1, 8, 6, 6), pad=0)
    z = convolve(y, pad=1)
    windows = build.window(y, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], -np.inf)
    assigned = assign(graph_of(z, build.reduce("MAX", windows, [4, 5])))
    fills = {b.fill for b in assigned.buffers.values() if b.storage is b and b.has_halo}
    guarded = [a for k in assigned.kernels for a in k.accesses() if a.guards]
    assert fills == {0.0, -np.inf} or guarded


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_of_a_concatenation_are_stored_in_place(axis):
    x, y = value(3, 4, 5), value(3, 4, 5, name="y")
    parts = [build.elementwise("EXP", x), build.elementwise("TANH", y)]
    whole = build.concat(parts, axis)
    for outputs in ([whole], [build.reduce("MAX", whole, [axis])]):
        assigned = assign(graph_of(*outputs))
        assert not copies(assigned)
        assert all(assigned.buffers[p].storage is assigned.buffers[whole].storage for p in parts)


def test_convolutions_store_into_their_concatenation():
    x = value(1, 8, 6, 6)
    parts = [convolve(x, 16), convolve(x, 32, pad=0, kernel=1)]
    whole = build.concat(parts, 1)
    assigned = assign(graph_of(convolve(whole)))
    assert all(assigned.buffers[p].parent is assigned.buffers[whole] for p in parts)
    assert not any(c.inputs[0] in parts for c in copies(assigned))


def test_a_part_that_appears_twice_is_copied():
    part = build.elementwise("EXP", value(3, 4))
    assigned = assign(graph_of(build.concat([part, part], 0)))
    assert len(copies(assigned)) == 2


def test_inputs_and_constants_are_copied_into_a_concatenation():
    x = value(3, 4)
    assigned = assign(graph_of(build.concat([x, array(2, 4)], 0)))
    assert [c.inputs[0].op for c in copies(assigned)] == ["INPUT", "CONST"]


def test_nested_concatenations_share_their_storage():
    x, y = value(3, 4), value(3, 4, name="y")
    inner = build.concat([build.elementwise("EXP", x), build.elementwise("SIN", y)], 0)
    outer = build.concat([inner, build.elementwise("COS", x)], 0)
    assigned = assign(graph_of(outer))
    assert not copies(assigned)
    assert len({id(b.storage) for b in assigned.buffers.values() if b.space == "output"}) == 1


def test_channel_shuffle_costs_no_kernel():
    y = convolve(value(1, 8, 6, 6), 24)
    shuffled = build.reshape(build.permute(build.reshape(y, (1, 3, 8, 6, 6)), [0, 2, 1, 3, 4]), (1, 24, 6, 6))
    assigned = assign(graph_of(convolve(shuffled, 16)))
    stored = [k.root for k in assigned.kernels if k.root.op != "COPY"]
    assert y.inputs[0] in stored and shuffled not in stored and len(stored) == 2


def test_outputs_are_numbered_in_the_order_of_the_signature():
    x = value(3, 4)
    outputs = [build.elementwise("EXP", x), x, array(2, 2), build.elementwise("EXP", x)]
    assigned = assign(graph_of(*outputs))
    assert list(assigned.outputs) == ["y0", "y1", "y2", "y3"]
    assert [assigned.buffers[n].number for n in assigned.outputs.values()] == [0, 1, 2, 3]
    assert all(assigned.buffers[n].space == "output" for n in assigned.outputs.values())


def test_a_transposed_operand_is_put_in_order_once():
    x, w = value(64, 20), value(40, 20, name="w")
    product = build.matmul(x, build.permute(w, [1, 0]))
    other = build.matmul(build.elementwise("TANH", x), build.permute(w, [1, 0]))
    assigned = assign(graph_of(product, other))
    assert [c.inputs[0] for c in copies(assigned)].count(w) == 1


def test_columns_side_by_side_in_every_contraction():
    flat = build.reshape(build.permute(build.matmul(value(30, 20), array(20, 40)), [1, 0]), (1200,))
    for y in (flat, build.elementwise("NEG", flat)):
        assigned = assign(graph_of(y))
        for kernel, contraction in zip(assigned.kernels, assigned.contractions):
            if contraction is not None:
                buffer = assigned.buffers[kernel.root]
                buffer.place()
                steps = [i.coefficient(contraction.vector) * s for i, s in zip(kernel.store, buffer.strides)]
                assert sum(steps) == 1


@pytest.mark.parametrize("pad", [0, 1])
def test_what_a_contraction_sums_lies_side_by_side_where_texels_are_wanted(pad):
    x = value(1, 3, 8, 8)
    by_texels, plain = (assign(graph_of(convolve(x, pad=pad)), texels=texels) for texels in (True, False))
    assert orders_of_copies(by_texels) == [(0, 2, 3, 1)]
    assert orders_of_copies(plain) == [(0, 1, 2, 3)] * pad


def test_parts_that_end_within_texels_are_copied_for_contractions_that_read_them_often():
    x = value(1, 6, 8, 8)
    parts = [build.elementwise("TANH", x), build.elementwise("SIGMOID", x)]
    joined = build.concat(parts, 1)
    often, once = assign(graph_of(convolve(joined)), texels=True), assign(graph_of(joined), texels=True)
    assert orders_of_copies(often) == [(0, 2, 3, 1)] and not orders_of_copies(once)
    assert not orders_of_copies(assign(graph_of(convolve(joined))))
    seldom = assign(graph_of(convolve(joined, 8, 0, kernel=1)), texels=True)
    assert not orders_of_copies(seldom)


def test_parts_of_a_concatenation_follow_what_sums_the_whole():
    x = value(1, 4, 8, 8)
    parts = [build.elementwise("TANH", x), build.elementwise("SIGMOID", x)]
    assigned = assign(graph_of(convolve(build.concat(parts, 1))), texels=True)
    assert {assigned.buffers[p].storage.order for p in parts} == {(0, 2, 3, 1)}
