"""Matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import legacy_broadcast, like
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


def matmul(a: Node, b: Node) -> Node:
    """numpy matmul of any ranks of at least 1."""
    left = build.reshape(a, [1, *a.shape]) if len(a.shape) == 1 else a
    right = build.reshape(b, [*b.shape, 1]) if len(b.shape) == 1 else b
    product = build.matmul(left, right)
    shape = list(product.shape)
    if len(b.shape) == 1:
        del shape[-1]
    if len(a.shape) == 1:
        del shape[-1 if len(b.shape) == 1 else -2]
    return build.reshape(product, shape)


@onnx_op("MatMul", tolerance=ACCUMULATED)
def _matmul(ctx: NodeContext, a: Node, b: Node) -> Node:
    """Matrix product as numpy.matmul."""
    ctx.same_dtype(a, b)
    ctx.require(len(a.shape) >= 1 and len(b.shape) >= 1, "its inputs must not be scalars")
    return matmul(a, b)


@onnx_op("Gemm", tolerance=ACCUMULATED)
def gemm(ctx: NodeContext, a: Node, b: Node, c: Node | None = None) -> Node:
    """alpha A B + beta C, with A and B transposed on demand and C broadcast."""
    ctx.require(c is not None or ctx.opset >= 11, "C is missing (it is optional since opset 11)")
    return general_product(ctx, a, b, c, legacy=ctx.opset < 7)


def general_product(ctx: NodeContext, a: Node, b: Node, c: Node | None, legacy: bool = False) -> Node:
    """What Gemm's attributes describe; `legacy` for the broadcast of old opsets."""
    ctx.same_dtype(a, b, c)
    ctx.require(
        len(a.shape) == 2 and len(b.shape) == 2,
        f"A and B must be matrices, not {list(a.shape)} and {list(b.shape)}",
    )
    alpha, beta = ctx.number("alpha", 1.0), ctx.number("beta", 1.0)
    if ctx.flag("transA"):
        a = build.permute(a, [1, 0])
    if ctx.flag("transB"):
        b = build.permute(b, [1, 0])
    result = build.matmul(a, b)
    if alpha != 1:
        result = build.elementwise("MUL", result, like(alpha, result))
    if c is None or beta == 0:
        return result
    if legacy:
        c = legacy_broadcast(ctx, result, c)
    ctx.require(
        build.broadcast_shape(result.shape, c.shape) == result.shape,
        f"C of shape {list(c.shape)} does not broadcast to {list(result.shape)}",
    )
    scaled = c if beta == 1 else build.elementwise("MUL", c, like(beta, c))
    return build.apply("ADD", result, scaled)


@onnx_op("Einsum", since=12, tolerance=ACCUMULATED)
def einsum(ctx: NodeContext, *inputs: Node) -> Node:
    """Einstein summation: operands as views over all letters, multiplied, summed over what is not kept."""
    ctx.all_given(inputs)
    ctx.require(bool(inputs), "takes at least one input")
    ctx.same_dtype(*inputs)
    equation = ctx.string("equation", REQUIRED).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    ctx.require(
        len(terms) == len(inputs),
        f"the equation '{equation}' has {len(terms)} operands, but {len(inputs)} are given",
    )
    subscripts = [_letters(ctx, term, len(x.shape)) for term, x in zip(terms, inputs)]
    sizes: dict[str, int] = {}
    for letters, x in zip(subscripts, inputs):
        for letter, size in zip(letters, x.shape):
            known = sizes.get(letter, 1)
            ctx.require(
                known in (1, size) or size == 1,
                f"'{letter}' of '{equation}' stands for both {known} and {size}",
            )
            sizes[letter] = max(known, size) if 0 not in (known, size) else 0
    if arrow:
        width = max((sum(l.isdigit() for l in s) for s in subscripts), default=0)
        output = _expand_ellipsis(right, width)
    else:
        joined = "".join(terms).replace("...", "")
        once = sorted(l for l in set(joined) if joined.count(l) == 1)
        output = [*sorted((l for l in sizes if l.isdigit()), reverse=True), *once]
    ctx.require(
        len(set(output)) == len(output) and set(output) <= sizes.keys(),
        f"the result of '{equation}' must name letters of its operands, each once",
    )
    return _contract(list(inputs), subscripts, output, sizes)


def _expand_ellipsis(term: str, width: int) -> list[str]:
    """Letters of a term, with digits for the axes of '...', counted from the last one."""
    before, dots, after = term.partition("...")
    return [*before, *([str(i) for i in reversed(range(width))] if dots else []), *after]


def _letters(ctx: NodeContext, term: str, rank: int) -> list[str]:
    plain = term.replace("...", "")
    ctx.require(
        plain.isascii() and (plain.isalpha() or not plain) and term.count("...") <= 1,
        f"'{term}' is no term of an equation",
    )
    width = rank - len(plain)
    ctx.require(
        width == 0 or (width > 0 and "..." in term and width < 10),
        f"'{term}' does not fit a tensor of rank {rank}",
    )
    return _expand_ellipsis(term, width)


def _contract(
    inputs: list[Node], subscripts: list[list[str]], output: list[str], sizes: dict[str, int]
) -> Node:
    """Pairs from the left, each summed over the letters that nothing later needs."""
    result, letters = inputs[0], subscripts[0]
    if len(inputs) == 1:
        kept = [*output, *(l for l in dict.fromkeys(letters) if l not in output)]
        return build.reduce("SUM", _spread(result, letters, kept, sizes), range(len(output), len(kept)))
    for position in range(1, len(inputs)):
        later = {l for s in subscripts[position + 1 :] for l in s}
        present = dict.fromkeys([*letters, *subscripts[position]])
        last = position == len(inputs) - 1
        kept = output if last else [l for l in present if l in output or l in later]
        order = [*kept, *(l for l in present if l not in kept)]
        product = build.elementwise(
            "MUL",
            _spread(result, letters, order, sizes),
            _spread(inputs[position], subscripts[position], order, sizes),
        )
        result, letters = build.reduce("SUM", product, range(len(kept), len(order))), list(kept)
    return result


def _spread(x: Node, letters: list[str], order: list[str], sizes: dict[str, int]) -> Node:
    """`x` as a view over the axes `order`; a letter that stands twice reads the diagonal."""
    shape = [sizes[l] for l in order]
    axes = {l: index(output_axis(i, sizes[l])) for i, l in enumerate(order)}
    return build.view(x, [axes[l] if d != 1 else index(0) for l, d in zip(letters, x.shape)], shape)
