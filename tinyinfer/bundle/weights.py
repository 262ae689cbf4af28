"""`WIDX` and `WGHT`: the parameters of all targets, each content once (`docs/bundle.md`, "Weights").

A plan's tensor is a `PlanTensor`: which stored tensor it is made of, and how. *Raw* tensors are views of the
mapped file. *Expanded* ones are stored smaller than they are in memory, where that is lossless to the bit and
saves a tenth of at least 4 KiB: integers that are kept in wide or float elements, floats that are all half
floats, and the zeros that fill the last panel of a contraction. They are made at load, all in one block of
memory.

Bundles that are open in one process share equal raw tensors: the first one's mapping serves all of them, and
the file pages of the others are given back. Equal means the same bytes, compared when both are there; the
SHA-256 of `WIDX` only says where to look, so that no bundle can hand its bytes to another.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from tinyinfer.backends.cpu.system import release_file_pages
from tinyinfer.budget import check_bytes
from tinyinfer.bundle import types
from tinyinfer.bundle.container import Container
from tinyinfer.errors import Fail, InvalidBundle
from tinyinfer.ir.dtypes import numpy_dtype

RECORD = struct.Struct("<32sQQ")
ALIGNMENT = 64
SKEW = 5 * ALIGNMENT
"""Distance kept after large tensors: those of a multiple of 4 KiB must not all begin at the same offset of a
page, where their lines would compete for the same sets of the first-level cache."""
LEAST_BYTES = 4096
"""Smaller tensors are not worth a copy."""
MOST_PART = 0.9
"""What a tensor may keep of its size to be stored smaller."""
MOST_ADDED = 1 << 31

Run = tuple[int, int, int]
"""Elements copied, elements left zero after them, times."""

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")
FLOATS = ("float16", "float32")
"""The types that an expanded tensor may be stored in, besides its own."""
WIDENED = {
    **dict.fromkeys(
        INTEGERS, ("int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
    ),
    **dict.fromkeys(FLOATS, ("float32", "float64")),
}
"""The types in memory that each of them is converted to, as far as those are wider."""
NUMBERS = frozenset((*INTEGERS, "uint32", "int64", "uint64", *FLOATS, "float64"))
"""The types in memory that an expanded tensor may have."""


@dataclass(frozen=True)
class StoredTensor:
    """A record of `WIDX`: bytes at an offset of `WGHT`, and their SHA-256."""

    sha256: bytes
    offset: int
    nbytes: int


@dataclass(frozen=True)
class PlanTensor:
    """A record of a plan's table of tensors: see `docs/bundle.md`. `stored` is a number of `WIDX`, `nbytes`
    what the tensor has in memory, in elements of `dtype`."""

    stored: int
    expanded: bool
    nbytes: int
    dtype: str
    stored_dtype: str
    added: int = 0
    runs: tuple[Run, ...] = ()


def check_tensor(tensor: PlanTensor, stored: Sequence[StoredTensor]) -> str | None:
    """What is wrong with a tensor, given the stored ones, as the end of a sentence about it."""
    if tensor.stored >= len(stored):
        return f"is stored tensor {tensor.stored} of {len(stored)}"
    have = stored[tensor.stored].nbytes
    elements, rest = divmod(tensor.nbytes, types.width(tensor.dtype))
    if rest:
        return f"has {tensor.nbytes} bytes, which are no whole elements of {tensor.dtype}"
    if not tensor.expanded:
        if have != tensor.nbytes or tensor.stored_dtype != tensor.dtype or tensor.runs or tensor.added:
            return f"is stored raw, but not as the {tensor.nbytes} bytes that it has in memory"
        return None
    kept = tensor.stored_dtype
    wider = types.width(kept) < types.width(tensor.dtype) and tensor.dtype in WIDENED.get(kept, ())
    if tensor.dtype not in NUMBERS or not (wider or kept == tensor.dtype):
        return f"cannot be expanded from {kept} to {tensor.dtype}"
    if tensor.added and (kept not in INTEGERS or not -MOST_ADDED <= tensor.added < MOST_ADDED):
        return f"adds {tensor.added} to elements of {kept}"
    if any(copied + zero == 0 or times == 0 for copied, zero, times in tensor.runs):
        return "has an empty run"
    runs = tensor.runs or ((elements, 0, 1),)
    covered = sum((copied + zero) * times for copied, zero, times in runs)
    if covered > elements:
        return f"has {elements} elements in memory, and runs of {covered}"
    copied = sum(copied * times for copied, _, times in runs)
    if copied * types.width(kept) != have:
        return f"copies {copied} elements of {kept} from {have} stored bytes"
    return None


# ---- writing


class WeightStore:
    """Collects the parameters of all targets of a bundle. `store="expanded"` keeps every tensor as it is in
    memory; "compact" stores it smaller where that pays."""

    def __init__(self, store: Literal["compact", "expanded"] = "compact"):
        if store not in ("compact", "expanded"):
            raise ValueError(f'weights are stored "compact" or "expanded", not {store!r}')
        self._compact = store == "compact"
        self._numbers: dict[tuple[bytes, int], int] = {}
        self._pieces: list[bytes | memoryview] = []
        self._end = 0
        self.stored: list[StoredTensor] = []

    def add(self, parameter: np.ndarray) -> PlanTensor:
        """Stores a parameter of a plan, unless its content is there already, and says how. The last axis of
        its shape is taken for a panel that may be padded with zeros."""
        dtype = parameter.dtype.name
        if dtype not in types.TYPES:
            raise ValueError(f"a bundle cannot hold weights of type {dtype}")
        array = np.ascontiguousarray(parameter)
        if self._compact and array.nbytes >= LEAST_BYTES and dtype in NUMBERS:
            made = _smaller(array)
            if made is not None:
                content, added, runs = made
                number = self._keep(content)
                return PlanTensor(number, True, array.nbytes, dtype, content.dtype.name, added, runs)
        return PlanTensor(self._keep(array), False, array.nbytes, dtype, dtype)

    def _keep(self, array: np.ndarray) -> int:
        content = array.reshape(-1).view(np.uint8)
        key = hashlib.sha256(content.data).digest(), content.size
        if key not in self._numbers:
            start = -(-self._end // ALIGNMENT) * ALIGNMENT
            self._pieces += [bytes(start - self._end), content.data]
            self._end = start + content.size
            self._numbers[key] = len(self.stored)
            self.stored.append(StoredTensor(key[0], start, content.size))
            if content.size >= LEAST_BYTES:
                self._pieces.append(bytes(SKEW))
                self._end += SKEW
        return self._numbers[key]

    def index(self) -> bytes:
        """The content of `WIDX`."""
        return b"".join(RECORD.pack(t.sha256, t.offset, t.nbytes) for t in self.stored)

    def content(self) -> list[bytes | memoryview]:
        """The content of `WGHT`, in pieces that follow each other."""
        return list(self._pieces)


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")


def _smaller(array: np.ndarray) -> tuple[np.ndarray, int, tuple[Run, ...]] | None:
    """Elements to store, what is added to each, and the runs of the layout; None where little is saved."""
    runs = _padding_runs(array)
    elements = gather(array.reshape(-1), runs) if runs else array.reshape(-1)
    stored, added = _narrow(elements)
    kept = stored.nbytes + 24 * len(runs)
    return (stored, added, runs) if kept <= MOST_PART * array.nbytes else None


def _padding_runs(array: np.ndarray) -> tuple[Run, ...]:
    """The runs of a tensor whose last panel is padded: columns at the end of the last axis that are zero for
    the last index of an axis before it. The axis is found by what it saves."""
    bits = _bits(array)
    if not bits.any():
        return ((0, bits.size, 1),)
    if bits.ndim < 2:
        return ()
    width = bits.shape[-1]
    best: tuple[int, int, int] | None = None
    for axis in range(bits.ndim - 1):
        used = bits.take(-1, axis).reshape(-1, width).any(axis=0)
        zero = width - (int(np.flatnonzero(used)[-1]) + 1 if used.any() else 0)
        saved = zero * (bits.size // (bits.shape[axis] * width))
        if zero and (best is None or saved > best[0]):
            best = saved, axis, zero
    if best is None:
        return ()
    _, axis, zero = best
    outer, inner = prod(bits.shape[:axis]), prod(bits.shape[axis + 1 : -1])
    full = (bits.shape[axis] - 1) * inner * width
    last = (width - zero, zero, inner)
    if not full:
        return ((*last[:2], inner * outer),)
    return ((full, 0, 1), last) * outer if outer <= MOST_OUTER else ()


MOST_OUTER = 1024
"""Padded panels, one after the other, that are worth a pair of runs each."""


def gather(flat: np.ndarray, runs: Sequence[Run]) -> np.ndarray:
    """The elements that runs copy, one after the other."""
    parts, position = [], 0
    for copied, zero, times in runs:
        end = position + (copied + zero) * times
        parts.append(flat[position:end].reshape(times, copied + zero)[:, :copied].reshape(-1))
        position = end
    return np.concatenate(parts) if parts else flat[:0]


def _narrow(elements: np.ndarray) -> tuple[np.ndarray, int]:
    """The same numbers in fewer bytes, and what is to be added to them; the elements as they are, where none
    of the types holds them to the bit."""
    if not elements.size or elements.dtype == np.float16:
        return elements, 0
    if elements.dtype.kind == "f":
        integers = _as_integers(elements)
        made = _narrow_integers(integers, elements.itemsize) if integers is not None else None
        if made is not None:
            return made
        for name in FLOATS:
            if types.width(name) < elements.itemsize:
                with np.errstate(all="ignore"):
                    narrow = elements.astype(name)
                if np.array_equal(_bits(narrow.astype(elements.dtype)), _bits(elements)):
                    return narrow, 0
        return elements, 0
    return _narrow_integers(elements, elements.itemsize) or (elements, 0)


def _as_integers(elements: np.ndarray) -> np.ndarray | None:
    """Floats that are all small whole numbers, as int32; a negative zero is none."""
    with np.errstate(all="ignore"):
        if not (np.abs(elements) < 1 << 24).all():
            return None
        whole = elements.astype(np.int32)
    return whole if np.array_equal(_bits(whole.astype(elements.dtype)), _bits(elements)) else None


def _narrow_integers(elements: np.ndarray, itemsize: int) -> tuple[np.ndarray, int] | None:
    """Integers in the narrowest type that holds them, with one number added or, better, none."""
    low, high = int(elements.min()), int(elements.max())
    for names in (("int8", "uint8"), ("int16", "uint16"), ("int32",)):
        if types.width(names[0]) >= itemsize:
            return None
        for name in names:
            limits = np.iinfo(name)
            if limits.min <= low and high <= limits.max:
                return elements.astype(name), 0
        limits = np.iinfo(names[-1])
        if limits.min == 0 and high - low <= limits.max and -MOST_ADDED <= low < MOST_ADDED:
            return (elements - elements.dtype.type(low)).astype(names[-1]), low
    return None


# ---- reading

_SHARED: weakref.WeakValueDictionary[tuple[bytes, str], np.ndarray] = weakref.WeakValueDictionary()
"""Raw tensors in use, by SHA-256 and type."""
_SHARED_LOCK = threading.Lock()


class Weights:
    """The stored tensors of an open bundle. Raises InvalidBundle where `WIDX` breaks its rules."""

    def __init__(self, container: Container):
        self._where = f"{container.label}: section WIDX"
        index, content = container.get("WIDX"), container.get("WGHT")
        assert index is not None and content is not None  # the container has checked that
        data = container.data(index)
        self._content = container.data(content)
        if data.size % RECORD.size:
            raise InvalidBundle(f"{self._where}: {data.size} bytes are no whole records of {RECORD.size}")
        self.stored = [StoredTensor(*record) for record in RECORD.iter_unpack(data.tobytes())]
        end = 0
        for number, tensor in enumerate(self.stored):
            if tensor.offset % ALIGNMENT or tensor.offset < end:
                raise InvalidBundle(
                    f"{self._where}: tensor {number} begins at {tensor.offset}, inside another or not aligned"
                )
            if tensor.offset + tensor.nbytes > self._content.size:
                raise InvalidBundle(f"{self._where}: tensor {number} ends outside of WGHT")
            if self._content[end : tensor.offset].any():
                raise InvalidBundle(f"{self._where}: bytes between tensors, before number {number}")
            end = tensor.offset + tensor.nbytes
        if self._content[end:].any():
            raise InvalidBundle(f"{self._where}: bytes after the last tensor")

    def load(self, tensors: Sequence[PlanTensor]) -> list[np.ndarray]:
        """The parameters of a plan: one-dimensional read-only arrays at multiples of 64 bytes, views of the
        file or of one new block. Raises Fail where the block is larger than limits or memory allow."""
        starts, end = [], 0
        for tensor in tensors:
            starts.append(end)
            if tensor.expanded:
                end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT + SKEW
        check_bytes(end, "the weights of the bundle")
        try:
            block = np.zeros(end + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise Fail(f"the weights of the bundle need {end} bytes of memory, more than there is") from None
        block = block[-block.ctypes.data % ALIGNMENT :]
        loaded = []
        for tensor, start in zip(tensors, starts):
            if tensor.expanded:
                array = block[start : start + tensor.nbytes].view(tensor.dtype)
                self._expand(tensor, array)
                array.flags.writeable = False
            else:
                array = self._shared(tensor)
            loaded.append(array)
        return loaded

    def check_hashes(self) -> None:
        """InvalidBundle where a stored tensor is not what its SHA-256 in `WIDX` says. The section's own hash
        has been checked before; this is for verifiers."""
        for number, tensor in enumerate(self.stored):
            if hashlib.sha256(self._bytes(tensor).data).digest() != tensor.sha256:
                raise InvalidBundle(f"{self._where}: tensor {number} does not match its SHA-256")

    def _bytes(self, tensor: StoredTensor) -> np.ndarray:
        return self._content[tensor.offset : tensor.offset + tensor.nbytes]

    def _shared(self, tensor: PlanTensor) -> np.ndarray:
        """A raw tensor, from the bundle that was first to have it."""
        stored = self.stored[tensor.stored]
        mine = self._bytes(stored).view(numpy_dtype(tensor.dtype))
        if stored.nbytes < LEAST_BYTES:
            return mine
        with _SHARED_LOCK:
            first = _SHARED.setdefault((stored.sha256, tensor.dtype), mine)
        if first is mine or first.ctypes.data == mine.ctypes.data:
            return first
        if not np.array_equal(first.view(np.uint8), mine.view(np.uint8)):
            return mine
        release_file_pages(mine)
        return first

    def _expand(self, tensor: PlanTensor, result: np.ndarray) -> None:
        stored = self._bytes(self.stored[tensor.stored]).view(tensor.stored_dtype)
        if tensor.added:
            stored = stored.astype(np.int64) + tensor.added
        taken = placed = 0
        for copied, zero, times in tensor.runs or ((result.size, 0, 1),):
            source = stored[taken : taken + copied * times].reshape(times, copied)
            taken += copied * times
            end = placed + (copied + zero) * times
            np.copyto(result[placed:end].reshape(times, copied + zero)[:, :copied], source, casting="unsafe")
            placed = end
