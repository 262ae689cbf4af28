"""The support library's functions give the C library's and numpy's bits, here and on the machines that need
them."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from emulated import TARGETS, Job

from tinyinfer.runtime.plan import KernelSource

F, D, H, L, U = np.float32, np.float64, np.float16, np.int64, np.uint64
TYPES = {F: "float", D: "double", H: "half", L: "i64", U: "i64"}
COUNT = 4000


def numbers(kind: type, seed: int) -> np.ndarray:
    """Random bits, numbers near each other in size, halves of small integers, and special values, mixed."""
    rng = np.random.default_rng(seed)
    if np.dtype(kind).kind in "iu":
        info = np.iinfo(kind)
        special = np.array([info.min, info.max, 0, 1, 2, info.max - 1, 1 << 53, (1 << 53) + 1], kind)
        some = rng.integers(info.min, info.max, COUNT, kind, endpoint=True)
        shifted = some >> rng.integers(0, 63, COUNT).astype(kind)
        made = np.concatenate([np.repeat(special, 20), shifted])
    else:
        bits = np.dtype(f"u{np.dtype(kind).itemsize}")
        info = np.finfo(kind)
        named = [0, 1, np.inf, np.nan, info.tiny, info.max, info.smallest_subnormal, 0.5, 1.5, 2.5]
        special = np.array(named, kind)
        random = rng.integers(0, np.iinfo(bits).max, COUNT, bits, endpoint=True).view(kind)
        close = (rng.standard_normal(COUNT) * 2.0 ** rng.integers(-8, 12, COUNT)).astype(kind)
        halves = (rng.integers(-9, 9, COUNT) / 2).astype(kind)
        made = np.concatenate([np.repeat([special, -special], 20), random, close, halves], axis=None)
    return rng.permutation(made)[:COUNT].astype(kind)


def fma(kind: type) -> Callable[..., np.ndarray]:
    """a · b + c, rounded once: in exact fractions."""

    def one(a, b, c):
        a, b, c = float(a), float(b), float(c)
        if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)) or 0 in (a, b, c):
            with np.errstate(all="ignore"):
                return D(a) * D(b) + D(c) if np.isfinite(c) or not np.isfinite(a * b) else c
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        return nearest(exact, kind)

    return lambda a, b, c: np.array([one(*x) for x in zip(a, b, c)]).astype(kind)


def nearest(exact: Fraction, kind: type) -> float:
    """The number of a format that is nearest to a fraction, ties to even."""
    info = np.finfo(kind)
    if exact == 0:
        return 0.0
    sign, size = (-1.0 if exact < 0 else 1.0), abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    count = round(size / unit)
    value = count * unit
    return sign * (float(value) if value <= Fraction(float(info.max)) else np.inf)


def called(name: str, kind: type, inputs: int) -> str:
    """A call by name, which LLVM does not turn into an instruction."""
    t = TYPES[kind]
    arguments = ", ".join(f"{t} %x{i}" for i in range(inputs))
    return f"%y = call {t} @{name}({arguments}) #1|declare {t} @{name}({', '.join([t] * inputs)})"


def _quiet(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def run(*arrays):
        with np.errstate(all="ignore"):
            return function(*arrays)

    return run


ROUNDING = {"trunc": np.trunc, "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "roundeven": np.rint}
CASES: dict[str, tuple[str, type, type, int, Callable[..., np.ndarray]]] = {}
for _kind, _end in ((F, "f"), (D, "")):
    CASES[f"fmod{_end}"] = (f"%y = frem {TYPES[_kind]} %x0, %x1|", _kind, _kind, 2, np.fmod)
    CASES[f"fma{_end}"] = (called(f"fma{_end}", _kind, 3), _kind, _kind, 3, fma(_kind))
    for _name, _function in ROUNDING.items():
        CASES[f"{_name}{_end}"] = (called(f"{_name}{_end}", _kind, 1), _kind, _kind, 1, _function)
    for _whole, _sign in ((L, "s"), (U, "u")):
        CASES[f"{_sign}itofp {TYPES[_kind]}"] = (
            f"%y = {_sign}itofp i64 %x0 to {TYPES[_kind]}|",
            _whole,
            _kind,
            1,
            lambda x, kind=_kind: x.astype(kind),
        )
        CASES[f"fpto{_sign}i {TYPES[_kind]}"] = (
            f"%y = fpto{_sign}i {TYPES[_kind]} %x0 to i64|",
            _kind,
            _whole,
            1,
            lambda x, whole=_whole: x.astype(whole),
        )
for _whole, _sign in ((L, "s"), (U, "u")):
    for _place, _name in enumerate(("div", "rem")):
        CASES[f"{_sign}{_name}"] = (
            f"%y = {_sign}{_name} i64 %x0, %x1|",
            _whole,
            _whole,
            2,
            lambda a, b, place=_place: _divide(a, b)[place],
        )
CASES["fpext half"] = ("%y = fpext half %x0 to float|", H, F, 1, lambda x: x.astype(F))
CASES["fptrunc float"] = ("%y = fptrunc float %x0 to half|", F, H, 1, lambda x: x.astype(H))


def _divide(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """C's quotient and remainder."""
    pairs = [(abs(int(x)) // abs(int(y)), abs(int(x)) % abs(int(y))) for x, y in zip(a, b)]
    signs = [(-1 if (int(x) < 0) != (int(y) < 0) else 1, -1 if int(x) < 0 else 1) for x, y in zip(a, b)]
    quotients = [q * s for (q, _), (s, _) in zip(pairs, signs)]
    return np.array(quotients, a.dtype), np.array([r * s for (_, r), (_, s) in zip(pairs, signs)], a.dtype)


def _inputs(name: str, kind: type, result: type, count: int) -> list[np.ndarray]:
    arrays = [numbers(kind, seed) for seed in range(count)]
    if name.startswith("fpto"):
        # what does not fit is for the caller to keep away
        limit = 2.0**63 if result is L else 2.0**64
        with np.errstate(all="ignore"):
            fits = (
                np.isfinite(arrays[0]) & (arrays[0] < limit) & (arrays[0] > (-limit if result is L else -1))
            )
        arrays[0] = np.where(fits, arrays[0], kind(77.7))
    if name in ("sdiv", "udiv", "srem", "urem"):
        refused = (arrays[1] == 0) | (arrays[1] == kind(-1 if kind is L else 0))
        arrays[1] = np.where(refused, kind(3), arrays[1])
    return arrays


def kernel(name: str, body: str, kind: type, result: type, count: int) -> KernelSource:
    """Element `chunk` of the last argument from those of the others."""
    statement, declaration = body.split("|")
    loads = "\n".join(
        f"  %a{i} = getelementptr ptr, ptr %arguments, i64 {i}\n  %p{i} = load ptr, ptr %a{i}\n"
        f"  %e{i} = getelementptr {TYPES[kind]}, ptr %p{i}, i64 %chunk\n"
        f"  %x{i} = load {TYPES[kind]}, ptr %e{i}"
        for i in range(count)
    )
    text = f"""{declaration}
define void @k(ptr %arguments, i64 %chunk) #0 {{
{loads}
  {statement}
  %ar = getelementptr ptr, ptr %arguments, i64 {count}
  %pr = load ptr, ptr %ar
  %er = getelementptr {TYPES[result]}, ptr %pr, i64 %chunk
  store {TYPES[result]} %y, ptr %er
  ret void
}}
attributes #0 = {{ nounwind "no-builtins" }}
attributes #1 = {{ nobuiltin }}
"""
    return KernelSource(f"support test/{text}", "k", lambda: text)


@pytest.mark.parametrize("target", ["host", "x86_64", *TARGETS])
def test_results_are_exact(target):
    job = Job(target)
    placed = []
    for name, (body, kind, result, count, function) in CASES.items():
        arrays = _inputs(name, kind, result, count)
        places = [job.place(x.tobytes()) for x in arrays]
        out = job.place(COUNT * np.dtype(result).itemsize)
        job.call(kernel(name, body, kind, result, count), COUNT, [*places, out])
        placed.append((name, arrays, result, function, out))
    memory = job.run()
    for name, arrays, result, function, out in placed:
        got = np.frombuffer(memory, result, COUNT, out)
        wanted = _quiet(function)(*arrays).astype(result)
        bits = np.dtype(f"u{got.itemsize}")
        same = got.view(bits) == wanted.view(bits)
        if got.dtype.kind == "f":
            same |= np.isnan(got) & np.isnan(wanted)
        wrong = np.flatnonzero(~same)[:3]
        shown = [([float(x[i]).hex() for x in arrays], got[i], wanted[i]) for i in wrong]
        assert same.all(), f"{target}: {name}: {(~same).sum()} differ: {shown}"
