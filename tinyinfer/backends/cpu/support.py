"""Functions that LLVM calls where a processor has no instruction: the library that images are linked with.

Each is LLVM IR of our own, compiled for the target like a kernel and linked only where something calls it.
Results are exact, or correctly rounded, as the C library's and the compiler's own would be; the functions
know nothing of a system.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.backends.cpu import support_arm, support_fma, support_half
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.runtime.plan import KernelSource

ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" "no-jump-tables"="true" }'


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: LLVM's name of the type, its bits, and those of its fraction."""

    name: str
    bits: int
    fraction: int

    @property
    def bias(self) -> int:
        return (1 << (self.bits - self.fraction - 2)) - 1

    @property
    def integer(self) -> str:
        return f"i{self.bits}"

    @property
    def suffix(self) -> str:
        """C's ending of a function's name for this type."""
        return "f" if self.name == "float" else ""


SINGLE, DOUBLE = Format("float", 32, 23), Format("double", 64, 52)
FORMATS = (SINGLE, DOUBLE)


def _fill(text: str, **values: object) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


# ---- remainders

# Long division of the fractions, as many bits at a time as 64-bit integers leave room for.
_FMOD = """
define @T@ @fmod@F@(@T@ %x, @T@ %y) #0 {
entry:
  %xb = bitcast @T@ %x to @I@
  %yb = bitcast @T@ %y to @I@
  %sign.i = and @I@ %xb, @SIGN@
  %xa.i = and @I@ %xb, @MAGNITUDE@
  %ya.i = and @I@ %yb, @MAGNITUDE@
  @WIDEN@
  %y.zero = icmp eq i64 %ya, 0
  %x.special = icmp uge i64 %xa, @INFINITY@
  %y.nan = icmp ugt i64 %ya, @INFINITY@
  %bad.1 = or i1 %y.zero, %x.special
  %bad = or i1 %bad.1, %y.nan
  br i1 %bad, label %invalid, label %compare
invalid:
  %product = fmul @T@ %x, %y
  %nan = fdiv @T@ %product, %product
  ret @T@ %nan
compare:
  %smaller = icmp ult i64 %xa, %ya
  br i1 %smaller, label %same, label %divide
same:
  ret @T@ %x
divide:
  %xe.field = lshr i64 %xa, @FRACTION@
  %ye.field = lshr i64 %ya, @FRACTION@
  %x.subnormal = icmp eq i64 %xe.field, 0
  %y.subnormal = icmp eq i64 %ye.field, 0
  %xe = select i1 %x.subnormal, i64 1, i64 %xe.field
  %ye = select i1 %y.subnormal, i64 1, i64 %ye.field
  %x.fraction = and i64 %xa, @MASK@
  %y.fraction = and i64 %ya, @MASK@
  %x.one = select i1 %x.subnormal, i64 0, i64 @ONE@
  %y.one = select i1 %y.subnormal, i64 0, i64 @ONE@
  %xm = or i64 %x.fraction, %x.one
  %ym = or i64 %y.fraction, %y.one
  %first = urem i64 %xm, %ym
  %distance = sub i64 %xe, %ye
  br label %check
check:
  %rest = phi i64 [%first, %divide], [%rest.next, %step]
  %left = phi i64 [%distance, %divide], [%left.next, %step]
  %more = icmp ne i64 %left, 0
  br i1 %more, label %step, label %done
step:
  %few = icmp ult i64 %left, @ROOM@
  %shift = select i1 %few, i64 %left, i64 @ROOM@
  %shifted = shl i64 %rest, %shift
  %rest.next = urem i64 %shifted, %ym
  %left.next = sub i64 %left, %shift
  br label %check
done:
  %nothing = icmp eq i64 %rest, 0
  %zeros.64 = call i64 @llvm.ctlz.i64(i64 %rest, i1 false)
  %zeros = sub i64 %zeros.64, @SPARE@
  %room = sub i64 %ye, 1
  %fits = icmp ult i64 %zeros, %room
  %up.some = select i1 %fits, i64 %zeros, i64 %room
  %up = select i1 %nothing, i64 0, i64 %up.some
  %normal = shl i64 %rest, %up
  %e = sub i64 %ye, %up
  %e.less = sub i64 %e, 1
  %e.field = shl i64 %e.less, @FRACTION@
  %sum = add i64 %normal, %e.field
  %magnitude = select i1 %nothing, i64 0, i64 %sum
  @NARROW@
  %bits = or @I@ %magnitude.i, %sign.i
  %result = bitcast @I@ %bits to @T@
  ret @T@ %result
}
declare i64 @llvm.ctlz.i64(i64, i1)
"""


def _fmod(f: Format) -> str:
    same = f.bits == 64
    widen = "bitcast i64 %{0}.i to i64" if same else "zext i32 %{0}.i to i64"
    narrow = "bitcast i64 %magnitude to i64" if same else "trunc i64 %magnitude to i32"
    return _fill(
        _FMOD,
        T=f.name,
        I=f.integer,
        F=f.suffix,
        SIGN=-(1 << (f.bits - 1)),
        MAGNITUDE=(1 << (f.bits - 1)) - 1,
        INFINITY=((1 << (f.bits - 1 - f.fraction)) - 1) << f.fraction,
        FRACTION=f.fraction,
        MASK=(1 << f.fraction) - 1,
        ONE=1 << f.fraction,
        ROOM=63 - f.fraction,
        SPARE=63 - f.fraction,
        WIDEN=f"%xa = {widen.format('xa')}\n  %ya = {widen.format('ya')}",
        NARROW=f"%magnitude.i = {narrow}",
    )


# ---- rounding to integers

_TRUNC = """
define @T@ @trunc@F@(@T@ %x) #0 {
  %bits = bitcast @T@ %x to @I@
  %magnitude = and @I@ %bits, @MAGNITUDE@
  %sign = and @I@ %bits, @SIGN@
  %field = lshr @I@ %magnitude, @FRACTION@
  %e = sub @I@ %field, @BIAS@
  %small = icmp slt @I@ %e, 0
  %whole = icmp sge @I@ %e, @FRACTION@
  %apart = or i1 %small, %whole
  %shift = select i1 %apart, @I@ 0, @I@ %e
  %mask = lshr @I@ @MASK@, %shift
  %keep = xor @I@ %mask, -1
  %cut = and @I@ %bits, %keep
  %some = select i1 %small, @I@ %sign, @I@ %cut
  %result = select i1 %whole, @I@ %bits, @I@ %some
  %y = bitcast @I@ %result to @T@
  ret @T@ %y
}
"""

# One away from the truncated number where that lies on the wrong side.
_STEP = """
define @T@ @@NAME@@F@(@T@ %x) #0 {
  %y = call @T@ @trunc@F@(@T@ %x)
  %wrong = fcmp @COMPARE@ @T@ %y, %x
  %next = fadd @T@ %y, @ONE@
  %result = select i1 %wrong, @T@ %next, @T@ %y
  ret @T@ %result
}
declare @T@ @trunc@F@(@T@)
"""

# Adding a number whose unit in the last place is 1 rounds, to even, and taking it away leaves the result.
_EVEN = """
define @T@ @@NAME@@F@(@T@ %x) #0 {
  %bits = bitcast @T@ %x to @I@
  %magnitude = and @I@ %bits, @MAGNITUDE@
  %sign = and @I@ %bits, @SIGN@
  %a = bitcast @I@ %magnitude to @T@
  %sum = fadd @T@ %a, @BIG@
  %rounded = fsub @T@ %sum, @BIG@
  %rounded.bits = bitcast @T@ %rounded to @I@
  %signed = or @I@ %rounded.bits, %sign
  %small = icmp ult @I@ %magnitude, @LIMIT@
  %result = select i1 %small, @I@ %signed, @I@ %bits
  %y = bitcast @I@ %result to @T@
  ret @T@ %y
}
"""


def _rounding(text: str, f: Format, name: str = "", compare: str = "", one: str = "") -> str:
    limit = (f.bias + f.fraction) << f.fraction
    return _fill(
        text,
        NAME=name,
        T=f.name,
        I=f.integer,
        F=f.suffix,
        SIGN=-(1 << (f.bits - 1)),
        MAGNITUDE=(1 << (f.bits - 1)) - 1,
        FRACTION=f.fraction,
        BIAS=f.bias,
        MASK=(1 << f.fraction) - 1,
        COMPARE=compare,
        ONE=one,
        BIG=f"{float(1 << f.fraction):e}",
        LIMIT=limit,
    )


# ---- memory

_MEMORY = """
define ptr @memcpy(ptr %to, ptr %from, @SIZE@ %size) #0 {
  %moved = call ptr @memmove(ptr %to, ptr %from, @SIZE@ %size)
  ret ptr %moved
}
declare ptr @memmove(ptr, ptr, @SIZE@)
"""

# Volatile, lest the loop be taken for a call of this function.
_MEMMOVE = """
define ptr @memmove(ptr %to, ptr %from, @SIZE@ %size) #0 {
entry:
  %to.number = ptrtoint ptr %to to @SIZE@
  %from.number = ptrtoint ptr %from to @SIZE@
  %up = icmp ule @SIZE@ %to.number, %from.number
  br label %check
check:
  %i = phi @SIZE@ [0, %entry], [%i.next, %byte]
  %more = icmp ult @SIZE@ %i, %size
  br i1 %more, label %byte, label %out
byte:
  %i.next = add @SIZE@ %i, 1
  %back = sub @SIZE@ %size, %i.next
  %at = select i1 %up, @SIZE@ %i, @SIZE@ %back
  %source = getelementptr i8, ptr %from, @SIZE@ %at
  %place = getelementptr i8, ptr %to, @SIZE@ %at
  %value = load volatile i8, ptr %source
  store volatile i8 %value, ptr %place
  br label %check
out:
  ret ptr %to
}
"""

_MEMSET = """
define ptr @memset(ptr %to, i32 %value, @SIZE@ %size) #0 {
entry:
  %byte.value = trunc i32 %value to i8
  br label %check
check:
  %i = phi @SIZE@ [0, %entry], [%i.next, %byte]
  %more = icmp ult @SIZE@ %i, %size
  br i1 %more, label %byte, label %out
byte:
  %place = getelementptr i8, ptr %to, @SIZE@ %i
  store volatile i8 %byte.value, ptr %place
  %i.next = add @SIZE@ %i, 1
  br label %check
out:
  ret ptr %to
}
"""


def _truncate(f: Format, name: str) -> str:
    shift = f.fraction - 10
    big = f.bias + f.fraction - 24 << f.fraction
    return _fill(
        support_half.TRUNCATE,
        NAME=name,
        T=f.name,
        I=f.integer,
        MAGNITUDE=(1 << (f.bits - 1)) - 1,
        SIGN_SHIFT=f.bits - 16,
        REBASE=f.bias - 15 << f.fraction,
        SHIFT=shift,
        HALF_LESS=(1 << (shift - 1)) - 1,
        BIG=f"{2.0 ** (f.fraction - 24):e}",
        BIG_BITS=big,
        SMALL=f.bias - 14 << f.fraction,
        LARGE=f.bias + 16 << f.fraction,
        INFINITY=(2 * f.bias + 1) << f.fraction,
    )


def _functions() -> dict[str, str]:
    """LLVM IR of each function by its name; what differs between targets is still to be filled in."""
    made: dict[str, str] = {}
    for f in FORMATS:
        made[f"fmod{f.suffix}"] = _fmod(f)
        made[f"trunc{f.suffix}"] = _rounding(_TRUNC, f)
        made[f"floor{f.suffix}"] = _rounding(_STEP, f, "floor", "ogt", "-1.0")
        made[f"ceil{f.suffix}"] = _rounding(_STEP, f, "ceil", "olt", "1.0")
        for name in ("rint", "nearbyint", "roundeven"):
            made[f"{name}{f.suffix}"] = _rounding(_EVEN, f, name)
    made |= {"fmaf": support_fma.SINGLE, "fma": support_fma.DOUBLE}
    made |= {"memcpy": _MEMORY, "memmove": _MEMMOVE, "memset": _MEMSET}
    made["__extendhfsf2"] = support_half.EXTEND
    made["__truncsfhf2"] = _truncate(SINGLE, "__truncsfhf2")
    made["__truncdfhf2"] = _truncate(DOUBLE, "__truncdfhf2")
    return made


_COMMON = _functions()
_ONLY = {"armv7": support_arm.FUNCTIONS}
"""Functions that one architecture's code calls, by its name."""


def functions_of(target: CpuTarget) -> dict[str, str]:
    """The library of a target: names, and LLVM IR before it is filled in."""
    return _COMMON | _ONLY.get(target.architecture, {})


def support_source(name: str, target: CpuTarget) -> KernelSource | None:
    """The function `name` as something to compile for `target`, or None where the library has no such
    function."""
    text = functions_of(target).get(name)
    if text is None:
        return None
    # WebAssembly has no register for a half
    half = "i16" if target.architecture == "wasm32" else "half"
    filled = f"{_fill(text, SIZE=f'i{8 * target.pointer_bytes}', H=half)}\n{ATTRIBUTES}\n"
    return KernelSource(f"support/{filled}", name, lambda: filled)
