"""The native code of a loop's launch: runs the launches of its body again and again on one thread.

It has a kernel's signature; its `arguments` are the loop's record (int64 words at the byte offsets below),
which `loop_tables` fills. Its launches are records as `driver` walks them, so that a body may hold a loop.

Places that change from one iteration to the next are listed as cursors {address of the pointer, bytes to
add after even iterations, bytes to add after odd ones}; at the end they are taken back, so that the next run
finds them as this one did.
"""

from __future__ import annotations

from tinyinfer.backends.cpu import driver

LAUNCHES, COUNT, STEPS, TRIPS, ENTER, GO_ON, ITERATION, LEFT = 0, 8, 16, 24, 32, 40, 48, 56
CURSORS, CURSOR_COUNT = 64, 72
BEFORE, BEFORE_COUNT, AFTER, AFTER_COUNT, CLEARED, CLEARED_COUNT = 80, 88, 96, 104, 112, 120
ALLOWED, MADE = 128, 136
"""Iterations that one run of the plan may make, and those that it made; more, where it was stopped."""
WORDS = 18
CURSOR = 24
COPY = 24
"""{to, from, bytes}"""
CLEAR = 16
"""{place, bytes}"""

_TEXT = """
define internal i64 @word(ptr %record, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %record, i64 %offset
  %value = load i64, ptr %place, align 8
  ret i64 %value
}

define internal ptr @pointer(ptr %record, i64 %offset) alwaysinline {
  %value = call i64 @word(ptr %record, i64 %offset)
  %pointer = inttoptr i64 %value to ptr
  ret ptr %pointer
}

define internal void @copy(ptr %list, i64 %count) #0 {
entry:
  %some = icmp ne i64 %count, 0
  br i1 %some, label %next, label %out
next:
  %number = phi i64 [0, %entry], [%number.next, %done]
  %offset = mul i64 %number, @COPY@
  %item = getelementptr i8, ptr %list, i64 %offset
  %to = call ptr @pointer(ptr %item, i64 0)
  %from = call ptr @pointer(ptr %item, i64 8)
  %size = call i64 @word(ptr %item, i64 16)
  %words = lshr i64 %size, 3
  %any = icmp ne i64 %words, 0
  br i1 %any, label %wide, label %rest
wide:
  %w = phi i64 [0, %next], [%w.next, %wide]
  %from.wide = getelementptr i64, ptr %from, i64 %w
  %to.wide = getelementptr i64, ptr %to, i64 %w
  %moved = load i64, ptr %from.wide, align 1
  store i64 %moved, ptr %to.wide, align 1
  %w.next = add i64 %w, 1
  %w.more = icmp ult i64 %w.next, %words
  br i1 %w.more, label %wide, label %rest
rest:
  %start = shl i64 %words, 3
  %left = icmp ult i64 %start, %size
  br i1 %left, label %byte, label %done
byte:
  %b = phi i64 [%start, %rest], [%b.next, %byte]
  %from.byte = getelementptr i8, ptr %from, i64 %b
  %to.byte = getelementptr i8, ptr %to, i64 %b
  %single = load i8, ptr %from.byte, align 1
  store i8 %single, ptr %to.byte, align 1
  %b.next = add i64 %b, 1
  %b.more = icmp ult i64 %b.next, %size
  br i1 %b.more, label %byte, label %done
done:
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %next, label %out
out:
  ret void
}

define internal void @clear(ptr %list, i64 %count) #0 {
entry:
  %some = icmp ne i64 %count, 0
  br i1 %some, label %next, label %out
next:
  %number = phi i64 [0, %entry], [%number.next, %done]
  %offset = mul i64 %number, @CLEAR@
  %item = getelementptr i8, ptr %list, i64 %offset
  %place = call ptr @pointer(ptr %item, i64 0)
  %size = call i64 @word(ptr %item, i64 8)
  %any = icmp ne i64 %size, 0
  br i1 %any, label %byte, label %done
byte:
  %b = phi i64 [0, %next], [%b.next, %byte]
  %to = getelementptr i8, ptr %place, i64 %b
  store i8 0, ptr %to, align 1
  %b.next = add i64 %b, 1
  %b.more = icmp ult i64 %b.next, %size
  br i1 %b.more, label %byte, label %done
done:
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %next, label %out
out:
  ret void
}

; Each cursor on by %evens of its even steps and %odds of its odd ones.
define internal void @move(ptr %list, i64 %count, i64 %evens, i64 %odds) #0 {
entry:
  %some = icmp ne i64 %count, 0
  br i1 %some, label %next, label %out
next:
  %number = phi i64 [0, %entry], [%number.next, %next]
  %offset = mul i64 %number, @CURSOR@
  %item = getelementptr i8, ptr %list, i64 %offset
  %place = call ptr @pointer(ptr %item, i64 0)
  %even = call i64 @word(ptr %item, i64 8)
  %odd = call i64 @word(ptr %item, i64 16)
  %by.even = mul i64 %even, %evens
  %by.odd = mul i64 %odd, %odds
  %by = add i64 %by.even, %by.odd
  %old = load i64, ptr %place, align 8
  %new = add i64 %old, %by
  store i64 %new, ptr %place, align 8
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %next, label %out
out:
  ret void
}

; Whether the bool at %place holds; none always does.
define internal i1 @holds(ptr %place) alwaysinline {
entry:
  %none = icmp eq ptr %place, null
  br i1 %none, label %yes, label %look
look:
  %value = load i8, ptr %place, align 1
  %holds = icmp ne i8 %value, 0
  ret i1 %holds
yes:
  ret i1 true
}

define void @NAME@(ptr %record, i64 %chunk) #0 {
entry:
  %launches = call ptr @pointer(ptr %record, i64 @LAUNCHES@)
  %count = call i64 @word(ptr %record, i64 @COUNT@)
  %steps = call i64 @word(ptr %record, i64 @STEPS@)
  %trips.place = call ptr @pointer(ptr %record, i64 @TRIPS@)
  %iteration = call ptr @pointer(ptr %record, i64 @ITERATION@)
  %enter = call ptr @pointer(ptr %record, i64 @ENTER@)
  %go.on = call ptr @pointer(ptr %record, i64 @GO_ON@)
  %cursors = call ptr @pointer(ptr %record, i64 @CURSORS@)
  %cursor.count = call i64 @word(ptr %record, i64 @CURSOR_COUNT@)
  %counted = icmp ne ptr %trips.place, null
  br i1 %counted, label %limit, label %prepare
limit:
  %trips = load i64, ptr %trips.place, align 8
  %fewer = icmp slt i64 %trips, %steps
  %least = select i1 %fewer, i64 %trips, i64 %steps
  br label %prepare
prepare:
  %most = phi i64 [%steps, %entry], [%least, %limit]
  %cleared = call ptr @pointer(ptr %record, i64 @CLEARED@)
  %cleared.count = call i64 @word(ptr %record, i64 @CLEARED_COUNT@)
  call void @clear(ptr %cleared, i64 %cleared.count)
  %before = call ptr @pointer(ptr %record, i64 @BEFORE@)
  %before.count = call i64 @word(ptr %record, i64 @BEFORE_COUNT@)
  call void @copy(ptr %before, i64 %before.count)
  %entered = call i1 @holds(ptr %enter)
  %allowed = call i64 @word(ptr %record, i64 @ALLOWED@)
  %made = call i64 @word(ptr %record, i64 @MADE@)
  %room = sub i64 %allowed, %made
  %short = icmp slt i64 %room, %most
  %end.at = select i1 %short, i64 %room, i64 %most
  br label %check
check:
  %t = phi i64 [0, %prepare], [%t.next, %end]
  %going = phi i1 [%entered, %prepare], [%again, %end]
  %within = icmp slt i64 %t, %end.at
  %run = and i1 %within, %going
  br i1 %run, label %begin, label %leave
begin:
  store i64 %t, ptr %iteration, align 8
  %any = icmp ne i64 %count, 0
  br i1 %any, label %launch, label %end
launch:
  %number = phi i64 [0, %begin], [%number.next, %next]
  %offset = mul i64 %number, @RECORD@
  %item = getelementptr i8, ptr %launches, i64 %offset
  %function = call ptr @pointer(ptr %item, i64 0)
  %arguments = call ptr @pointer(ptr %item, i64 8)
  %chunks = call i64 @word(ptr %item, i64 16)
  %some = icmp ne i64 %chunks, 0
  br i1 %some, label %part, label %next
part:
  %c = phi i64 [0, %launch], [%c.next, %part]
  call void %function(ptr %arguments, i64 %c)
  %c.next = add i64 %c, 1
  %c.more = icmp ult i64 %c.next, %chunks
  br i1 %c.more, label %part, label %next
next:
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %launch, label %end
end:
  %odd = and i64 %t, 1
  %even = xor i64 %odd, 1
  call void @move(ptr %cursors, i64 %cursor.count, i64 %even, i64 %odd)
  %again = call i1 @holds(ptr %go.on)
  %t.next = add i64 %t, 1
  br label %check
leave:
  %reached = xor i1 %within, true
  %cut = and i1 %reached, %going
  %stopped = and i1 %cut, %short
  %one = zext i1 %stopped to i64
  %made.now = add i64 %made, %t
  %made.up = add i64 %made.now, %one
  %made.place = getelementptr i8, ptr %record, i64 @MADE@
  store i64 %made.up, ptr %made.place, align 8
  %after = call ptr @pointer(ptr %record, i64 @AFTER@)
  %after.count = call i64 @word(ptr %record, i64 @AFTER_COUNT@)
  call void @copy(ptr %after, i64 %after.count)
  %t.up = add i64 %t, 1
  %evens = lshr i64 %t.up, 1
  %odds = lshr i64 %t, 1
  %evens.back = sub i64 0, %evens
  %odds.back = sub i64 0, %odds
  call void @move(ptr %cursors, i64 %cursor.count, i64 %evens.back, i64 %odds.back)
  %left = call ptr @pointer(ptr %record, i64 @LEFT@)
  %read = icmp ne ptr %left, null
  br i1 %read, label %tell, label %out
tell:
  store i64 %t, ptr %left, align 8
  br label %out
out:
  ret void
}
"""


def loop_text(name: str) -> str:
    """LLVM IR of the function `name` that runs a loop's record; it needs the attribute group #0."""
    numbers = {key: value for key, value in globals().items() if key.isupper() and isinstance(value, int)}
    numbers["RECORD"] = driver.RECORD
    text = _TEXT.replace("@NAME@", f"@{name}")
    for key, value in numbers.items():
        text = text.replace(f"@{key}@", str(value))
    return text
