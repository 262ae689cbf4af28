"""Operators on text: the host computes them, for no kernel holds strings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyinfer.errors import RuntimeException
from tinyinfer.frontend.onnx.blocks.regular_expressions import full_matcher
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.values import HostValue, Value, describe
from tinyinfer.ir.build import broadcast_shape
from tinyinfer.ir.node import Node


def require_strings(ctx: NodeContext, *inputs: Value) -> None:
    """Fail unless the inputs are tensors of strings."""
    for x in inputs:
        ctx.require(isinstance(x, HostValue) and x.kind == "string", f"takes strings, not {describe(x)}")


def _shape(x: Value) -> tuple[int, ...]:
    return x.shape if isinstance(x, (Node, HostValue)) else ()


def _check_text(ctx: NodeContext, length: int) -> None:
    most = ctx.importer.limits.max_text
    if length > most:
        raise RuntimeException(f"{ctx.label}: {length} characters are over the limit max_text = {most}")


def _objects(items: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(shape)


@onnx_op("StringConcat", since=20, tolerance=EXACT, values=True)
def string_concat(ctx: NodeContext, x: Value, y: Value) -> Any:
    """x and y one after the other, element by element."""
    require_strings(ctx, x, y)
    shape = broadcast_shape(_shape(x), _shape(y))
    most = ctx.importer.limits.max_text
    ctx.require(math.prod(shape) <= most, f"{list(shape)} strings are over the limit max_text = {most}")

    def run(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
        left, right = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
        longest = max(map(len, a.reshape(-1)), default=0) + max(map(len, b.reshape(-1)), default=0)
        if longest * math.prod(shape) > most:
            length = sum(len(p) + len(q) for p, q in zip(left.reshape(-1), right.reshape(-1)))
            _check_text(ctx, length)
        return (_objects([p + q for p, q in zip(left.reshape(-1), right.reshape(-1))], shape),)

    return ctx.host_call(run, [x, y])


@onnx_op("StringSplit", since=20, tolerance=EXACT, values=True)
def string_split(ctx: NodeContext, x: Value) -> Any:
    """The parts of each string along a new last axis, filled with ""; and how many there are."""
    require_strings(ctx, x)
    delimiter = ctx.string("delimiter", None) or None
    most = ctx.integer("maxsplit", None)
    limit = -1 if most is None else most

    def run(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # white space at the end is none of the last part's, as in onnxruntime
        texts = [text if delimiter else text.strip() for text in a.reshape(-1)]
        parts = [text.split(delimiter, limit) if text else [] for text in texts]
        width = max(map(len, parts), default=0)
        _check_text(ctx, width * len(parts))
        padded = [p for part in parts for p in (*part, *[""] * (width - len(part)))]
        counts = np.asarray([len(p) for p in parts], np.int64)
        return _objects(padded, (*a.shape, width)), counts.reshape(a.shape)

    return ctx.host_call(run, [x], outputs=2)


@onnx_op("RegexFullMatch", since=20, tolerance=EXACT, values=True)
def regex_full_match(ctx: NodeContext, x: Value) -> Any:
    """Whether the whole of each string matches a regular expression of RE2."""
    require_strings(ctx, x)
    matches = full_matcher(ctx.string("pattern", REQUIRED))

    def run(a: np.ndarray) -> tuple[np.ndarray]:
        return (np.asarray([matches(text) for text in a.reshape(-1)], bool).reshape(a.shape),)

    return ctx.host_call(run, [x])


# ---- normalisation

ACTIONS = ("NONE", "LOWER", "UPPER")


def _by_letter(change: Callable[[str], str], text: str) -> str:
    """`change` of each letter that stays one letter: towlower and towupper, which have no "SS" for "ß"."""
    return "".join(c if len(change(c)) != 1 else change(c) for c in text)


def changed_case(text: str, action: str) -> str:
    """`text` in lower or upper case, or as it is."""
    return text if action == "NONE" else _by_letter(str.lower if action == "LOWER" else str.upper, text)


@onnx_op("StringNormalizer", since=10, tolerance=EXACT, values=True)
def string_normalizer(ctx: NodeContext, x: Value) -> Any:
    """Strings without stop words, in lower or upper case. Nothing left is one empty string."""
    require_strings(ctx, x)
    shape = _shape(x)
    ctx.require(len(shape) == 1 or (len(shape) == 2 and shape[0] == 1), f"takes [C] or [1, C], not {shape}")
    action = ctx.string("case_change_action", "NONE", choices=ACTIONS)
    exact = ctx.flag("is_case_sensitive")
    # words that are compared without case are all brought to one
    compared = "NONE" if exact else "LOWER" if action == "NONE" else action
    stops = {changed_case(word, compared) for word in ctx.strings("stopwords", None) or []}

    def run(a: np.ndarray) -> tuple[np.ndarray]:
        kept = [changed_case(t, action) for t in a.reshape(-1) if changed_case(t, compared) not in stops]
        kept = kept or [""]
        return (_objects(kept, (*a.shape[:-1], len(kept))),)

    return ctx.host_call(run, [x])


# ---- counts of n-grams


@onnx_op("TfIdfVectorizer", since=9, tolerance=ROUNDED, values=True)
def tf_idf_vectorizer(ctx: NodeContext, x: Value) -> Any:
    """How often each n-gram of a pool occurs in each row, with up to so many words skipped; or its weight."""
    names, numbers = ctx.strings("pool_strings", None), ctx.integers("pool_int64s", None)
    ctx.require(bool(names) != bool(numbers), "needs either 'pool_strings' or 'pool_int64s'")
    if names:
        require_strings(ctx, x)
    else:
        ctx.require(
            isinstance(x, Node) and x.dtype in ("int32", "int64"), f"takes integers, not {describe(x)}"
        )
    ctx.require(len(_shape(x)) <= 2, f"takes [C] or [N, C], not {list(_shape(x))}")
    mode = ctx.string("mode", REQUIRED, choices=("TF", "IDF", "TFIDF"))
    least = ctx.integer("min_gram_length", REQUIRED, minimum=1)
    most = ctx.integer("max_gram_length", REQUIRED, minimum=least)
    skips = ctx.integer("max_skip_count", REQUIRED, minimum=0)
    places = ctx.integers("ngram_indexes", REQUIRED, minimum=0)
    ctx.require(bool(places), "'ngram_indexes' is empty")
    width = max(places) + 1
    ctx.table_size(width, "the largest of 'ngram_indexes'")
    grams = _pool(ctx, names or numbers, places, least, most)
    weights = ctx.numbers("weights", None)
    ctx.require(not weights or len(weights) == len(places), f"'weights' must hold {len(places)} numbers")
    factor = np.ones(width, np.float32)
    if weights and mode != "TF":
        factor[places] = np.asarray(weights, np.float32)

    def run(a: np.ndarray) -> tuple[np.ndarray]:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) if a.ndim else a.reshape(1, 1)
        counts = np.zeros((len(rows), width), np.float32)
        for row, words in zip(counts, rows.tolist()):
            for place in _occurrences(words, grams, (least, most), skips):
                row[place] += 1
        if mode == "IDF":
            counts = (counts > 0).astype(np.float32)
        return ((counts * factor).reshape(*a.shape[:-1], width),)

    return ctx.host_call(run, [x])


Grams = dict[tuple[Any, ...], int]


def _pool(ctx: NodeContext, pool: list[Any], places: list[int], least: int, most: int) -> Grams:
    """The place in the output of each n-gram whose length is within the limits."""
    starts = ctx.integers("ngram_counts", REQUIRED, minimum=0)
    ctx.require(most <= len(starts), f"'ngram_counts' has {len(starts)} numbers for n-grams of up to {most}")
    grams: Grams = {}
    number = 0
    for length, (start, stop) in enumerate(zip(starts, [*starts[1:], len(pool)]), 1):
        ctx.require(start <= stop <= len(pool), f"'ngram_counts' {starts} does not fit a pool of {len(pool)}")
        ctx.require((stop - start) % length == 0, f"the pool's {length}-grams are not whole")
        for at in range(start, stop, length):
            if least <= length <= most:
                ctx.require(number < len(places), f"'ngram_indexes' has no number for n-gram {number}")
                gram = tuple(pool[at : at + length])
                ctx.require(gram not in grams, f"the pool holds {gram} twice")
                grams[gram] = places[number]
            number += 1
    return grams


def _occurrences(words: list[Any], grams: Grams, lengths: tuple[int, int], skips: int) -> list[int]:
    """The places of all n-grams in `words`; single words are not counted again with each skip."""
    least, most = lengths
    used = {len(gram) for gram in grams}
    found = []
    for length in sorted(n for n in used if least <= n <= most):
        for distance in range(1, 2 if length == 1 else skips + 2):
            reach = distance * (length - 1)
            if reach >= len(words):
                break
            for start in range(len(words) - reach):
                place = grams.get(tuple(words[start : start + reach + 1 : distance]))
                if place is not None:
                    found.append(place)
    return found
