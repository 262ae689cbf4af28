"""Fused multiply-add, correctly rounded, for processors without the instruction (`support`)."""

from __future__ import annotations

# The product of two singles is exact in double precision. The sum is rounded there to odd (of the two
# neighbours of an inexact result, the one whose last bit is 1), so that rounding it to single gives what one
# rounding would. Source: S. Boldo, G. Melquiond, "Emulation of a FMA and Correctly Rounded Sums: Proved
# Algorithms Using Rounding to Odd", IEEE Transactions on Computers 57 (2008).
SINGLE = """
define float @fmaf(float %a, float %b, float %c) #0 {
  %a.wide = fpext float %a to double
  %b.wide = fpext float %b to double
  %c.wide = fpext float %c to double
  %product = fmul double %a.wide, %b.wide
  %sum = fadd double %product, %c.wide
  %c.part = fsub double %sum, %product
  %product.part = fsub double %sum, %c.part
  %product.error = fsub double %product, %product.part
  %c.error = fsub double %c.wide, %c.part
  %error = fadd double %product.error, %c.error
  %bits = bitcast double %sum to i64
  %last = and i64 %bits, 1
  %even = icmp eq i64 %last, 0
  %inexact = fcmp one double %error, 0.0
  %move = and i1 %inexact, %even
  %error.bits = bitcast double %error to i64
  %signs = xor i64 %error.bits, %bits
  %inwards = icmp slt i64 %signs, 0
  %step = select i1 %inwards, i64 -1, i64 1
  %moved = add i64 %bits, %step
  %odd.bits = select i1 %move, i64 %moved, i64 %bits
  %odd = bitcast i64 %odd.bits to double
  %result = fptrunc double %odd to float
  ret float %result
}
"""

# In integers: the product's 106 bits and c's 53 as 128-bit numbers of one exponent, whose lowest bit also
# stands for all bits below it; then one rounding.
DOUBLE = """
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.fshr.i64(i64, i64, i64)
declare i64 @llvm.fshl.i64(i64, i64, i64)

; The fraction, its highest bit at bit 52, and the exponent of its bit 0.
define internal {i64, i64} @parts(i64 %magnitude) alwaysinline #0 {
  %field = lshr i64 %magnitude, 52
  %fraction = and i64 %magnitude, 4503599627370495
  %subnormal = icmp eq i64 %field, 0
  %one = select i1 %subnormal, i64 0, i64 4503599627370496
  %small = or i64 %fraction, %one
  %zeros = call i64 @llvm.ctlz.i64(i64 %small, i1 false)
  %up = sub i64 %zeros, 11
  %place = and i64 %up, 63
  %whole = shl i64 %small, %place
  %least = select i1 %subnormal, i64 1, i64 %field
  %exponent.up = sub i64 %least, 1075
  %exponent = sub i64 %exponent.up, %up
  %first = insertvalue {i64, i64} poison, i64 %whole, 0
  %both = insertvalue {i64, i64} %first, i64 %exponent, 1
  ret {i64, i64} %both
}

; The 128-bit number %high:%low, which is not 0, %n places down; bits that fall out stay as a 1 in the
; lowest one.
define internal {i64, i64} @down(i64 %high, i64 %low, i64 %n) alwaysinline #0 {
  %far = icmp uge i64 %n, 64
  %beyond = icmp uge i64 %n, 128
  %lost.1 = select i1 %far, i64 %low, i64 0
  %low.1 = select i1 %far, i64 %high, i64 %low
  %high.1 = select i1 %far, i64 0, i64 %high
  %shift = and i64 %n, 63
  %low.2 = call i64 @llvm.fshr.i64(i64 %high.1, i64 %low.1, i64 %shift)
  %high.2 = lshr i64 %high.1, %shift
  %mask.all = shl i64 -1, %shift
  %mask = xor i64 %mask.all, -1
  %lost.2 = and i64 %low.1, %mask
  %lost = or i64 %lost.1, %lost.2
  %some = icmp ne i64 %lost, 0
  %sticky = zext i1 %some to i64
  %low.3 = or i64 %low.2, %sticky
  %low.4 = select i1 %beyond, i64 1, i64 %low.3
  %high.4 = select i1 %beyond, i64 0, i64 %high.2
  %first = insertvalue {i64, i64} poison, i64 %high.4, 0
  %both = insertvalue {i64, i64} %first, i64 %low.4, 1
  ret {i64, i64} %both
}

define double @fma(double %a, double %b, double %c) #0 {
entry:
  %a.bits = bitcast double %a to i64
  %b.bits = bitcast double %b to i64
  %c.bits = bitcast double %c to i64
  %a.magnitude = and i64 %a.bits, 9223372036854775807
  %b.magnitude = and i64 %b.bits, 9223372036854775807
  %c.magnitude = and i64 %c.bits, 9223372036854775807
  %a.special = icmp uge i64 %a.magnitude, 9218868437227405312
  %b.special = icmp uge i64 %b.magnitude, 9218868437227405312
  %c.special = icmp uge i64 %c.magnitude, 9218868437227405312
  %a.zero = icmp eq i64 %a.magnitude, 0
  %b.zero = icmp eq i64 %b.magnitude, 0
  %c.zero = icmp eq i64 %c.magnitude, 0
  %factor.special = or i1 %a.special, %b.special
  %factor.zero = or i1 %a.zero, %b.zero
  %plain = or i1 %factor.special, %factor.zero
  %product = fmul double %a, %b
  br i1 %plain, label %separate, label %addend
separate:
  %separate.sum = fadd double %product, %c
  ret double %separate.sum
addend:
  br i1 %c.special, label %infinite, label %finite
infinite:
  %itself = fadd double %c, %c
  ret double %itself
finite:
  br i1 %c.zero, label %alone, label %general
alone:
  ret double %product

general:
  %a.parts = call {i64, i64} @parts(i64 %a.magnitude)
  %b.parts = call {i64, i64} @parts(i64 %b.magnitude)
  %c.parts = call {i64, i64} @parts(i64 %c.magnitude)
  %a.whole = extractvalue {i64, i64} %a.parts, 0
  %b.whole = extractvalue {i64, i64} %b.parts, 0
  %c.whole = extractvalue {i64, i64} %c.parts, 0
  %a.exponent = extractvalue {i64, i64} %a.parts, 1
  %b.exponent = extractvalue {i64, i64} %b.parts, 1
  %c.exponent = extractvalue {i64, i64} %c.parts, 1
  %x = shl i64 %a.whole, 10
  %y = shl i64 %b.whole, 10
  %x.low = and i64 %x, 4294967295
  %y.low = and i64 %y, 4294967295
  %x.high = lshr i64 %x, 32
  %y.high = lshr i64 %y, 32
  %low.low = mul i64 %x.low, %y.low
  %low.high = mul i64 %x.low, %y.high
  %high.low = mul i64 %x.high, %y.low
  %high.high = mul i64 %x.high, %y.high
  %carry.1 = lshr i64 %low.low, 32
  %carry.2 = and i64 %low.high, 4294967295
  %carry.3 = and i64 %high.low, 4294967295
  %carry.12 = add i64 %carry.1, %carry.2
  %middle = add i64 %carry.12, %carry.3
  %middle.up = shl i64 %middle, 32
  %lowest = and i64 %low.low, 4294967295
  %p.low = or i64 %middle.up, %lowest
  %top.1 = lshr i64 %low.high, 32
  %top.2 = lshr i64 %high.low, 32
  %top.3 = lshr i64 %middle, 32
  %top.12 = add i64 %top.1, %top.2
  %top = add i64 %top.12, %top.3
  %p.high = add i64 %high.high, %top
  %p.exponent.up = add i64 %a.exponent, %b.exponent
  %p.exponent = sub i64 %p.exponent.up, 20
  %c.high = shl i64 %c.whole, 8
  %k.exponent = sub i64 %c.exponent, 72
  %distance = sub i64 %p.exponent, %k.exponent
  %c.smaller = icmp sge i64 %distance, 0
  %back = sub i64 0, %distance
  %c.by = select i1 %c.smaller, i64 %distance, i64 0
  %p.by = select i1 %c.smaller, i64 0, i64 %back
  %exponent = select i1 %c.smaller, i64 %p.exponent, i64 %k.exponent
  %p = call {i64, i64} @down(i64 %p.high, i64 %p.low, i64 %p.by)
  %k = call {i64, i64} @down(i64 %c.high, i64 0, i64 %c.by)
  %ph = extractvalue {i64, i64} %p, 0
  %pl = extractvalue {i64, i64} %p, 1
  %kh = extractvalue {i64, i64} %k, 0
  %kl = extractvalue {i64, i64} %k, 1
  %p.sign.bits = xor i64 %a.bits, %b.bits
  %p.sign = and i64 %p.sign.bits, -9223372036854775808
  %c.sign = and i64 %c.bits, -9223372036854775808
  %same = icmp eq i64 %p.sign, %c.sign
  %h.more = icmp ugt i64 %ph, %kh
  %h.equal = icmp eq i64 %ph, %kh
  %l.more = icmp uge i64 %pl, %kl
  %tie = and i1 %h.equal, %l.more
  %p.more = or i1 %h.more, %tie
  %bh = select i1 %p.more, i64 %ph, i64 %kh
  %bl = select i1 %p.more, i64 %pl, i64 %kl
  %sh = select i1 %p.more, i64 %kh, i64 %ph
  %sl = select i1 %p.more, i64 %kl, i64 %pl
  %sign = select i1 %p.more, i64 %p.sign, i64 %c.sign
  %sum.low = add i64 %bl, %sl
  %sum.carry = icmp ult i64 %sum.low, %bl
  %sum.one = zext i1 %sum.carry to i64
  %sum.high.1 = add i64 %bh, %sh
  %sum.high = add i64 %sum.high.1, %sum.one
  %rest.low = sub i64 %bl, %sl
  %borrows = icmp ult i64 %bl, %sl
  %borrow = zext i1 %borrows to i64
  %rest.high.1 = sub i64 %bh, %sh
  %rest.high = sub i64 %rest.high.1, %borrow
  %high = select i1 %same, i64 %sum.high, i64 %rest.high
  %low = select i1 %same, i64 %sum.low, i64 %rest.low
  %any = or i64 %high, %low
  %cancelled = icmp eq i64 %any, 0
  br i1 %cancelled, label %nothing, label %round
nothing:
  ret double 0.0

round:
  %empty = icmp eq i64 %high, 0
  %high.1 = select i1 %empty, i64 %low, i64 %high
  %low.1 = select i1 %empty, i64 0, i64 %low
  %skipped = select i1 %empty, i64 64, i64 0
  %zeros = call i64 @llvm.ctlz.i64(i64 %high.1, i1 false)
  %high.2 = call i64 @llvm.fshl.i64(i64 %high.1, i64 %low.1, i64 %zeros)
  %zeros.place = and i64 %zeros, 63
  %low.2 = shl i64 %low.1, %zeros.place
  %below = icmp ne i64 %low.2, 0
  %below.bit = zext i1 %below to i64
  %number = or i64 %high.2, %below.bit
  %less = add i64 %skipped, %zeros
  %exponent.less = sub i64 %exponent, %less
  %field = add i64 %exponent.less, 1150
  %huge = icmp sgt i64 %field, 2046
  %tiny = icmp slt i64 %field, 1
  %deeper.all = sub i64 1, %field
  %deeper = select i1 %tiny, i64 %deeper.all, i64 0
  %away = add i64 %deeper, 11
  %over = icmp ugt i64 %away, 63
  %vanishing = icmp ugt i64 %away, 64
  %half.number = lshr i64 %number, 1
  %last = and i64 %number, 1
  %halved = or i64 %half.number, %last
  %number.1 = select i1 %over, i64 %halved, i64 %number
  %number.2 = select i1 %vanishing, i64 1, i64 %number.1
  %by = select i1 %over, i64 63, i64 %away
  %quotient = lshr i64 %number.2, %by
  %mask.all = shl i64 -1, %by
  %mask = xor i64 %mask.all, -1
  %remainder = and i64 %number.2, %mask
  %half.by = sub i64 %by, 1
  %half = shl i64 1, %half.by
  %above = icmp ugt i64 %remainder, %half
  %middle.exactly = icmp eq i64 %remainder, %half
  %odd.bit = and i64 %quotient, 1
  %odd = icmp ne i64 %odd.bit, 0
  %up.even = and i1 %middle.exactly, %odd
  %up = or i1 %above, %up.even
  %one = zext i1 %up to i64
  %rounded = add i64 %quotient, %one
  %field.less = sub i64 %field, 1
  %field.up = shl i64 %field.less, 52
  %base = select i1 %tiny, i64 0, i64 %field.up
  %finished = add i64 %base, %rounded
  %magnitude = select i1 %huge, i64 9218868437227405312, i64 %finished
  %bits = or i64 %magnitude, %sign
  %result = bitcast i64 %bits to double
  ret double %result
}
"""
