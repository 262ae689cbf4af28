"""64-bit integers on 32-bit Arm: division, and conversions from and to floating point (`support`).

Names and calling convention: Run-time ABI for the Arm Architecture, "Integer (32/32 -> 32) division
functions" and "The floating-point helper functions". Arguments are passed in integer registers whatever the
others do.
"""

from __future__ import annotations

# The hardware divides 32 bits. Longer numbers are divided bit by bit, from where the divisor's highest bit
# meets the dividend's.
_UNSIGNED = """
define arm_aapcscc {i64, i64} @__aeabi_uldivmod(i64 %n, i64 %d) #0 {
entry:
  %any = or i64 %n, %d
  %short = icmp ult i64 %any, 4294967296
  %nothing = icmp eq i64 %d, 0
  br i1 %nothing, label %zero, label %size
zero:
  %zero.pair = insertvalue {i64, i64} {i64 0, i64 poison}, i64 %n, 1
  ret {i64, i64} %zero.pair
size:
  br i1 %short, label %narrow, label %wide
narrow:
  %n.32 = trunc i64 %n to i32
  %d.32 = trunc i64 %d to i32
  %q.32 = udiv i32 %n.32, %d.32
  %back = mul i32 %q.32, %d.32
  %r.32 = sub i32 %n.32, %back
  %q.narrow = zext i32 %q.32 to i64
  %r.narrow = zext i32 %r.32 to i64
  %narrow.first = insertvalue {i64, i64} poison, i64 %q.narrow, 0
  %narrow.pair = insertvalue {i64, i64} %narrow.first, i64 %r.narrow, 1
  ret {i64, i64} %narrow.pair
wide:
  %n.zeros = call i64 @llvm.ctlz.i64(i64 %n, i1 false)
  %d.zeros = call i64 @llvm.ctlz.i64(i64 %d, i1 false)
  %less = icmp ult i64 %n, %d
  %distance = sub i64 %d.zeros, %n.zeros
  br i1 %less, label %small, label %begin
small:
  %small.pair = insertvalue {i64, i64} {i64 0, i64 poison}, i64 %n, 1
  ret {i64, i64} %small.pair
begin:
  %start = shl i64 %d, %distance
  br label %bit
bit:
  %left = phi i64 [%distance, %begin], [%left.next, %bit]
  %divisor = phi i64 [%start, %begin], [%divisor.next, %bit]
  %rest = phi i64 [%n, %begin], [%rest.next, %bit]
  %quotient = phi i64 [0, %begin], [%quotient.next, %bit]
  %fits = icmp uge i64 %rest, %divisor
  %taken = select i1 %fits, i64 %divisor, i64 0
  %rest.next = sub i64 %rest, %taken
  %one = zext i1 %fits to i64
  %doubled = shl i64 %quotient, 1
  %quotient.next = or i64 %doubled, %one
  %divisor.next = lshr i64 %divisor, 1
  %left.next = sub i64 %left, 1
  %done = icmp eq i64 %left, 0
  br i1 %done, label %out, label %bit
out:
  %first = insertvalue {i64, i64} poison, i64 %quotient.next, 0
  %pair = insertvalue {i64, i64} %first, i64 %rest.next, 1
  ret {i64, i64} %pair
}
declare i64 @llvm.ctlz.i64(i64, i1)
"""

_SIGNED = """
declare arm_aapcscc {i64, i64} @__aeabi_uldivmod(i64, i64)
define arm_aapcscc {i64, i64} @__aeabi_ldivmod(i64 %n, i64 %d) #0 {
  %n.minus = icmp slt i64 %n, 0
  %d.minus = icmp slt i64 %d, 0
  %n.back = sub i64 0, %n
  %d.back = sub i64 0, %d
  %n.size = select i1 %n.minus, i64 %n.back, i64 %n
  %d.size = select i1 %d.minus, i64 %d.back, i64 %d
  %pair = call arm_aapcscc {i64, i64} @__aeabi_uldivmod(i64 %n.size, i64 %d.size)
  %q = extractvalue {i64, i64} %pair, 0
  %r = extractvalue {i64, i64} %pair, 1
  %differ = xor i1 %n.minus, %d.minus
  %q.back = sub i64 0, %q
  %r.back = sub i64 0, %r
  %q.signed = select i1 %differ, i64 %q.back, i64 %q
  %r.signed = select i1 %n.minus, i64 %r.back, i64 %r
  %first = insertvalue {i64, i64} poison, i64 %q.signed, 0
  %both = insertvalue {i64, i64} %first, i64 %r.signed, 1
  ret {i64, i64} %both
}
"""

# Both halves are exact in double precision, so that their sum is rounded once.
_TO_DOUBLE = """
define arm_aapcscc double @@NAME@(i64 %x) #0 {
  %high.64 = lshr i64 %x, 32
  %high.32 = trunc i64 %high.64 to i32
  %low.32 = trunc i64 %x to i32
  %high = @CONVERT@ i32 %high.32 to double
  %low = uitofp i32 %low.32 to double
  %scaled = fmul double %high, 4294967296.0
  %sum = fadd double %scaled, %low
  ret double %sum
}
"""

# Eleven bits that rounding to single does not look at singly become one, so that the double is exact.
_UNSIGNED_TO_SINGLE = """
declare arm_aapcscc double @__aeabi_ul2d(i64)
define arm_aapcscc float @__aeabi_ul2f(i64 %x) #0 {
  %tail = and i64 %x, 2047
  %long = icmp uge i64 %x, 9007199254740992
  %inexact = icmp ne i64 %tail, 0
  %shorten = and i1 %long, %inexact
  %head = and i64 %x, -2048
  %sticky = or i64 %head, 2048
  %kept = select i1 %shorten, i64 %sticky, i64 %x
  %wide = call arm_aapcscc double @__aeabi_ul2d(i64 %kept)
  %result = fptrunc double %wide to float
  ret float %result
}
"""

_SIGNED_TO_SINGLE = """
declare arm_aapcscc float @__aeabi_ul2f(i64)
define arm_aapcscc float @__aeabi_l2f(i64 %x) #0 {
  %minus = icmp slt i64 %x, 0
  %back = sub i64 0, %x
  %size = select i1 %minus, i64 %back, i64 %x
  %positive = call arm_aapcscc float @__aeabi_ul2f(i64 %size)
  %negative = fneg float %positive
  %result = select i1 %minus, float %negative, float %positive
  ret float %result
}
"""

_UNSIGNED_FROM_DOUBLE = """
define arm_aapcscc i64 @__aeabi_d2ulz(double %x) #0 {
  %scaled = fmul double %x, 0x3DF0000000000000
  %high.32 = fptoui double %scaled to i32
  %high.whole = uitofp i32 %high.32 to double
  %high.value = fmul double %high.whole, 4294967296.0
  %rest = fsub double %x, %high.value
  %low.32 = fptoui double %rest to i32
  %high.64 = zext i32 %high.32 to i64
  %low = zext i32 %low.32 to i64
  %high = shl i64 %high.64, 32
  %result = or i64 %high, %low
  ret i64 %result
}
"""

_SIGNED_FROM_DOUBLE = """
declare arm_aapcscc i64 @__aeabi_d2ulz(double)
define arm_aapcscc i64 @__aeabi_d2lz(double %x) #0 {
  %minus = fcmp olt double %x, 0.0
  %back = fneg double %x
  %size = select i1 %minus, double %back, double %x
  %positive = call arm_aapcscc i64 @__aeabi_d2ulz(double %size)
  %negative = sub i64 0, %positive
  %result = select i1 %minus, i64 %negative, i64 %positive
  ret i64 %result
}
"""

_FROM_SINGLE = """
declare arm_aapcscc i64 @@WIDE@(double)
define arm_aapcscc i64 @@NAME@(float %x) #0 {
  %wide = fpext float %x to double
  %result = call arm_aapcscc i64 @@WIDE@(double %wide)
  ret i64 %result
}
"""

FUNCTIONS = {
    "__aeabi_uldivmod": _UNSIGNED,
    "__aeabi_ldivmod": _SIGNED,
    "__aeabi_ul2d": _TO_DOUBLE.replace("@NAME@", "__aeabi_ul2d").replace("@CONVERT@", "uitofp"),
    "__aeabi_l2d": _TO_DOUBLE.replace("@NAME@", "__aeabi_l2d").replace("@CONVERT@", "sitofp"),
    "__aeabi_ul2f": _UNSIGNED_TO_SINGLE,
    "__aeabi_l2f": _SIGNED_TO_SINGLE,
    "__aeabi_d2ulz": _UNSIGNED_FROM_DOUBLE,
    "__aeabi_d2lz": _SIGNED_FROM_DOUBLE,
    "__aeabi_f2ulz": _FROM_SINGLE.replace("@NAME@", "__aeabi_f2ulz").replace("@WIDE@", "__aeabi_d2ulz"),
    "__aeabi_f2lz": _FROM_SINGLE.replace("@NAME@", "__aeabi_f2lz").replace("@WIDE@", "__aeabi_d2lz"),
}
