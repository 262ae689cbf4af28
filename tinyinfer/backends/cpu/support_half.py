"""Conversions between half precision and wider formats, for processors without the instructions (`support`).

@H@ is what the target passes a half as: itself, or its bits.
"""

from __future__ import annotations

# Fraction and exponent move up together; the bias differs by 112. A subnormal half is a whole number of
# 2^-24.
EXTEND = """
define float @__extendhfsf2(@H@ %half) #0 {
  %bits = bitcast @H@ %half to i16
  %wide = zext i16 %bits to i32
  %sign.low = and i32 %wide, 32768
  %sign = shl i32 %sign.low, 16
  %magnitude = and i32 %wide, 32767
  %moved = shl i32 %magnitude, 13
  %normal = add i32 %moved, 939524096
  %infinite = add i32 %moved, 1879048192
  %nan = or i32 %infinite, 4194304
  %count = uitofp i32 %magnitude to float
  %small = fmul float %count, 0x3E70000000000000
  %small.bits = bitcast float %small to i32
  %is.small = icmp ult i32 %magnitude, 1024
  %is.infinite = icmp eq i32 %magnitude, 31744
  %is.nan = icmp ugt i32 %magnitude, 31744
  %finite = select i1 %is.small, i32 %small.bits, i32 %normal
  %number = select i1 %is.infinite, i32 %infinite, i32 %finite
  %any = select i1 %is.nan, i32 %nan, i32 %number
  %signed = or i32 %any, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}
"""

# Numbers that become subnormal are rounded by adding a number whose unit in the last place is 2^-24.
TRUNCATE = """
define @H@ @@NAME@(@T@ %x) #0 {
  %bits = bitcast @T@ %x to @I@
  %magnitude = and @I@ %bits, @MAGNITUDE@
  %sign.far = lshr @I@ %bits, @SIGN_SHIFT@
  %sign.wide = and @I@ %sign.far, 32768
  %rebased = sub @I@ %magnitude, @REBASE@
  %cut = lshr @I@ %rebased, @SHIFT@
  %last = and @I@ %cut, 1
  %more.1 = add @I@ %rebased, @HALF_LESS@
  %more = add @I@ %more.1, %last
  %normal = lshr @I@ %more, @SHIFT@
  %a = bitcast @I@ %magnitude to @T@
  %sum = fadd @T@ %a, @BIG@
  %sum.bits = bitcast @T@ %sum to @I@
  %small = sub @I@ %sum.bits, @BIG_BITS@
  %payload.far = lshr @I@ %magnitude, @SHIFT@
  %payload = and @I@ %payload.far, 1023
  %nan = or @I@ %payload, 32256
  %is.small = icmp ult @I@ %magnitude, @SMALL@
  %is.large = icmp uge @I@ %magnitude, @LARGE@
  %is.nan = icmp ugt @I@ %magnitude, @INFINITY@
  %finite = select i1 %is.small, @I@ %small, @I@ %normal
  %number = select i1 %is.large, @I@ 31744, @I@ %finite
  %any = select i1 %is.nan, @I@ %nan, @I@ %number
  %signed = or @I@ %any, %sign.wide
  %narrow = trunc @I@ %signed to i16
  %result = bitcast i16 %narrow to @H@
  ret @H@ %result
}
"""
