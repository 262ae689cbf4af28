"""The native executor: LLVM IR that walks a plan's launch table, on the caller's thread and on workers alike.

The text is the same for every plan; what differs lies in three tables in memory (offsets below, in bytes):

* the context: where the tables are, and the words that threads share, each on a cache line pair of its own;
* launches: `RECORD` bytes each, read only while running;
* counters: for each launch and thread one `COUNTER`-byte line, the number of chunks that were ever taken of
  the thread's part of the launch.

Each thread has a contiguous part of every launch's chunks, so that it finds in its own cache what it stored
in the launch before; having finished it, it takes chunks of the others' parts. Chunks are taken by compare-
and-exchange on the part's counter. Counters are never reset: run g (1, 2, …) of a plan owns the numbers
(g-1)·size … g·size-1 of a part, and `done` counts finished chunks of all runs. So a thread that comes late,
even in a later run, finds nothing to take and touches nothing else, and nobody ever waits for a thread,
only for work. The caller walks every launch; workers may start where it stands (`front`).

Functions: `tinyinfer_run(context, io)`, `tinyinfer_profile(context, io, stamps)` with one int64 of
nanoseconds before the first launch and one after each, `tinyinfer_worker(context)`, and
`tinyinfer_stop(context)`, which makes the workers return; no run may follow it. `io` holds the addresses of
the inputs' and then the outputs' array objects, whose data pointer lies `DATA` bytes into them (0: `io` holds
the data pointers themselves); patches copy the pointers into the argument tables.

Subnormal numbers count as zero while a plan runs, and the caller's floating-point mode is restored after:
they are below every tolerance, and the processor takes a hundred times longer for one of them.
"""

from __future__ import annotations

from tinyinfer.backends.cpu.target import CpuTarget

# Context, int64 words at these byte offsets.
LAUNCHES, COUNT, PATCHES, PATCH_COUNT, TOTAL, PARALLEL = 0, 8, 16, 24, 32, 40
SYSCALL, FUTEX, CLOCK, CLOCK_ID, YIELD, SLEEP = 48, 56, 64, 72, 80, 88
IDLE, SPINS, DATA, THREADS = 96, 104, 112, 120
GENERATION, STOP, NUMBER = 128, 136, 144
DONE = 256
FRONT = 384
SLEEPERS = 512
CONTEXT_BYTES = 640

# A launch record: function, arguments, chunks, chunks that must be done before it, chunks done after it,
# counters (one a thread).
RECORD = 64
COUNTER = 64
# A patch: number in `io`, byte offset added to the address, where the sum goes.
PATCH = 24

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
    "arm64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

_FLUSH = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @flush() {
  %place = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %old = load i32, ptr %place, align 4
  %new = or i32 %old, 32832
  store i32 %new, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  %wide = zext i32 %old to i64
  ret i64 %wide
}
define internal void @restore(i64 %old) {
  %place = alloca i32, align 4
  %narrow = trunc i64 %old to i32
  store i32 %narrow, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 @flush() {
  %old = call i64 @llvm.aarch64.get.fpcr()
  %new = or i64 %old, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %new)
  ret i64 %old
}
define internal void @restore(i64 %old) {
  call void @llvm.aarch64.set.fpcr(i64 %old)
  ret void
}
""",
}
_FLUSH["arm64"] = _FLUSH["aarch64"]
_NO_FLUSH = """
define internal i64 @flush() {
  ret i64 0
}
define internal void @restore(i64 %old) {
  ret void
}
"""

_TEXT = """
@DECLARE_PAUSE@
@FLUSH@

define internal i64 @field(ptr %context, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %context, i64 %offset
  %value = load i64, ptr %place, align 8
  ret i64 %value
}

define internal i64 @clock(ptr %context) {
  %time = alloca [2 x i64], align 8
  %address = call i64 @field(ptr %context, i64 @CLOCK@)
  %function = inttoptr i64 %address to ptr
  %id = call i64 @field(ptr %context, i64 @CLOCK_ID@)
  %id.32 = trunc i64 %id to i32
  %failed = call i32 %function(i32 %id.32, ptr %time)
  %seconds = load i64, ptr %time, align 8
  %rest.place = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %rest.place, align 8
  %whole = mul i64 %seconds, 1000000000
  %nanoseconds = add i64 %whole, %rest
  ret i64 %nanoseconds
}

; Until `done` has reached %target: spin, then give the core away, for the awaited thread may need it.
define internal void @await(ptr %context, i64 %target) {
entry:
  %place = getelementptr i8, ptr %context, i64 @DONE@
  %limit = call i64 @field(ptr %context, i64 @SPINS@)
  br label %check
check:
  %spins = phi i64 [0, %entry], [%spins.next, %pause], [%spins.next, %yield]
  %done = load atomic i64, ptr %place acquire, align 8
  %reached = icmp sge i64 %done, %target
  br i1 %reached, label %out, label %wait
wait:
  %spins.next = add i64 %spins, 1
  %patient = icmp ult i64 %spins.next, %limit
  br i1 %patient, label %pause, label %yield
pause:
  @PAUSE@
  br label %check
yield:
  %address = call i64 @field(ptr %context, i64 @YIELD@)
  %function = inttoptr i64 %address to ptr
  %failed = call i32 %function()
  br label %check
out:
  ret void
}

; The launches from %first on, in run %generation, on thread %me. Only the caller (thread 0) leads: it moves
; `front` and stamps. A launch of one chunk that waits is left to the caller: it ran what came before.
define internal void @walk(ptr %context, i64 %generation, i64 %first, i64 %me, ptr %stamps) {
entry:
  %launches.address = call i64 @field(ptr %context, i64 @LAUNCHES@)
  %launches = inttoptr i64 %launches.address to ptr
  %count = call i64 @field(ptr %context, i64 @COUNT@)
  %total = call i64 @field(ptr %context, i64 @TOTAL@)
  %threads = call i64 @field(ptr %context, i64 @THREADS@)
  %leads = icmp eq i64 %me, 0
  %done.place = getelementptr i8, ptr %context, i64 @DONE@
  %front.place = getelementptr i8, ptr %context, i64 @FRONT@
  %before = sub i64 %generation, 1
  %done.base = mul i64 %before, %total
  %stamping = icmp ne ptr %stamps, null
  %any = icmp ult i64 %first, %count
  br i1 %any, label %launch, label %out
launch:
  %number = phi i64 [%first, %entry], [%number.next, %next]
  %offset = mul i64 %number, @RECORD@
  %record = getelementptr i8, ptr %launches, i64 %offset
  %function.address = call i64 @field(ptr %record, i64 0)
  %function = inttoptr i64 %function.address to ptr
  %arguments.address = call i64 @field(ptr %record, i64 8)
  %arguments = inttoptr i64 %arguments.address to ptr
  %chunks = call i64 @field(ptr %record, i64 16)
  %needed = call i64 @field(ptr %record, i64 24)
  %counters.address = call i64 @field(ptr %record, i64 40)
  %counters = inttoptr i64 %counters.address to ptr
  %waits = icmp ne i64 %needed, 0
  br i1 %waits, label %wait, label %start
wait:
  %ready = add i64 %done.base, %needed
  call void @await(ptr %context, i64 %ready)
  br label %start
start:
  br i1 %leads, label %lead, label %begin
lead:
  store atomic i64 %number, ptr %front.place monotonic, align 8
  br label %begin
begin:
  %single = icmp eq i64 %chunks, 1
  %follows = and i1 %single, %waits
  %foreign = icmp ne i64 %me, 0
  %left = and i1 %follows, %foreign
  br i1 %left, label %stamp, label %part
part:
  %turn = phi i64 [0, %begin], [%turn.next, %part.done]
  %mine.before = phi i64 [0, %begin], [%mine, %part.done]
  %part.far = add i64 %me, %turn
  %part.round = sub i64 %part.far, %threads
  %part.over = icmp uge i64 %part.far, %threads
  %part.number = select i1 %part.over, i64 %part.round, i64 %part.far
  %up = sub i64 %threads, 1
  %start.scaled = mul i64 %part.number, %chunks
  %start.up = add i64 %start.scaled, %up
  %part.start = udiv i64 %start.up, %threads
  %stop.scaled = add i64 %start.scaled, %chunks
  %stop.up = add i64 %stop.scaled, %up
  %part.stop = udiv i64 %stop.up, %threads
  %size = sub i64 %part.stop, %part.start
  %counter.offset = mul i64 %part.number, @COUNTER@
  %counter = getelementptr i8, ptr %counters, i64 %counter.offset
  %base = mul i64 %before, %size
  %seen.first = load atomic i64, ptr %counter monotonic, align 8
  br label %take
take:
  %seen = phi i64 [%seen.first, %part], [%seen.now, %try], [%seen.next, %run]
  %mine = phi i64 [%mine.before, %part], [%mine, %try], [%mine.next, %run]
  %place = sub i64 %seen, %base
  %free = icmp ult i64 %place, %size
  br i1 %free, label %try, label %part.done
part.done:
  %turn.next = add i64 %turn, 1
  %others = icmp ult i64 %turn.next, %threads
  br i1 %others, label %part, label %finished
try:
  %seen.next = add i64 %seen, 1
  %pair = cmpxchg ptr %counter, i64 %seen, i64 %seen.next monotonic monotonic, align 8
  %seen.now = extractvalue {i64, i1} %pair, 0
  %taken = extractvalue {i64, i1} %pair, 1
  br i1 %taken, label %run, label %take
run:
  %chunk = add i64 %part.start, %place
  call void %function(ptr %arguments, i64 %chunk)
  %mine.next = add i64 %mine, 1
  br label %take
finished:
  %worked = icmp ne i64 %mine, 0
  br i1 %worked, label %report, label %stamp
report:
  %old = atomicrmw add ptr %done.place, i64 %mine acq_rel, align 8
  br label %stamp
stamp:
  br i1 %stamping, label %complete, label %next
complete:
  %after = call i64 @field(ptr %record, i64 32)
  %done.after = add i64 %done.base, %after
  call void @await(ptr %context, i64 %done.after)
  %time = call i64 @clock(ptr %context)
  %stamp.number = add i64 %number, 1
  %stamp.place = getelementptr i64, ptr %stamps, i64 %stamp.number
  store i64 %time, ptr %stamp.place, align 8
  br label %next
next:
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %launch, label %out
out:
  ret void
}

; All launches on this thread alone, no shared word touched.
define internal void @serial(ptr %context, ptr %stamps) {
entry:
  %launches.address = call i64 @field(ptr %context, i64 @LAUNCHES@)
  %launches = inttoptr i64 %launches.address to ptr
  %count = call i64 @field(ptr %context, i64 @COUNT@)
  %stamping = icmp ne ptr %stamps, null
  %any = icmp ne i64 %count, 0
  br i1 %any, label %launch, label %out
launch:
  %number = phi i64 [0, %entry], [%number.next, %next]
  %offset = mul i64 %number, @RECORD@
  %record = getelementptr i8, ptr %launches, i64 %offset
  %function.address = call i64 @field(ptr %record, i64 0)
  %function = inttoptr i64 %function.address to ptr
  %arguments.address = call i64 @field(ptr %record, i64 8)
  %arguments = inttoptr i64 %arguments.address to ptr
  %chunks = call i64 @field(ptr %record, i64 16)
  %some = icmp ne i64 %chunks, 0
  br i1 %some, label %run, label %finished
run:
  %chunk = phi i64 [0, %launch], [%chunk.next, %run]
  call void %function(ptr %arguments, i64 %chunk)
  %chunk.next = add i64 %chunk, 1
  %chunks.left = icmp ult i64 %chunk.next, %chunks
  br i1 %chunks.left, label %run, label %finished
finished:
  br i1 %stamping, label %stamp, label %next
stamp:
  %time = call i64 @clock(ptr %context)
  %stamp.number = add i64 %number, 1
  %stamp.place = getelementptr i64, ptr %stamps, i64 %stamp.number
  store i64 %time, ptr %stamp.place, align 8
  br label %next
next:
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %count
  br i1 %more, label %launch, label %out
out:
  ret void
}

; Two sleepers at most: each that finds work wakes two more, so that nobody pays for all of them.
define internal void @wake(ptr %context) {
entry:
  %sleepers.place = getelementptr i8, ptr %context, i64 @SLEEPERS@
  %sleepers = load atomic i64, ptr %sleepers.place seq_cst, align 8
  %any = icmp sgt i64 %sleepers, 0
  br i1 %any, label %some, label %out
some:
  %address = call i64 @field(ptr %context, i64 @SYSCALL@)
  %known = icmp ne i64 %address, 0
  br i1 %known, label %call, label %out
call:
  %function = inttoptr i64 %address to ptr
  %futex = call i64 @field(ptr %context, i64 @FUTEX@)
  %word = getelementptr i8, ptr %context, i64 @GENERATION@
  %woken = call i64 (i64, ...) %function(i64 %futex, ptr %word, i64 129, i64 2, ptr null, ptr null, i64 0)
  br label %out
out:
  ret void
}

; Until the generation is no longer %seen, or for a while; the caller looks again.
define internal void @sleep(ptr %context, i64 %seen) {
entry:
  %sleepers = getelementptr i8, ptr %context, i64 @SLEEPERS@
  %address = call i64 @field(ptr %context, i64 @SYSCALL@)
  %known = icmp ne i64 %address, 0
  br i1 %known, label %futex, label %doze
futex:
  %up = atomicrmw add ptr %sleepers, i64 1 seq_cst, align 8
  %function = inttoptr i64 %address to ptr
  %number = call i64 @field(ptr %context, i64 @FUTEX@)
  %word = getelementptr i8, ptr %context, i64 @GENERATION@
  %low = and i64 %seen, 4294967295
  %slept = call i64 (i64, ...) %function(i64 %number, ptr %word, i64 128, i64 %low, ptr null, ptr null, i64 0)
  %down = atomicrmw sub ptr %sleepers, i64 1 seq_cst, align 8
  %generation = load atomic i64, ptr %word monotonic, align 8
  %new = icmp ne i64 %generation, %seen
  br i1 %new, label %others, label %out
others:
  call void @wake(ptr %context)
  br label %out
doze:
  %sleep.address = call i64 @field(ptr %context, i64 @SLEEP@)
  %sleep = inttoptr i64 %sleep.address to ptr
  %failed = call i32 %sleep(i32 200)
  br label %out
out:
  ret void
}

define void @tinyinfer_worker(ptr %context) {
entry:
  %old = call i64 @flush()
  %word = getelementptr i8, ptr %context, i64 @GENERATION@
  %stop.place = getelementptr i8, ptr %context, i64 @STOP@
  %front.place = getelementptr i8, ptr %context, i64 @FRONT@
  %idle = call i64 @field(ptr %context, i64 @IDLE@)
  %number.place = getelementptr i8, ptr %context, i64 @NUMBER@
  %number = atomicrmw add ptr %number.place, i64 1 monotonic, align 8
  %threads = call i64 @field(ptr %context, i64 @THREADS@)
  %others = sub i64 %threads, 1
  %turn = urem i64 %number, %others
  %me = add i64 %turn, 1
  br label %reset
reset:
  %seen = phi i64 [0, %entry], [%generation, %work]
  %start = call i64 @clock(ptr %context)
  br label %look
look:
  %spins = phi i64 [0, %reset], [%spins.next, %spin], [0, %slept]
  %generation = load atomic i64, ptr %word acquire, align 8
  %new = icmp ne i64 %generation, %seen
  br i1 %new, label %changed, label %wait
changed:
  %stop = load atomic i64, ptr %stop.place monotonic, align 8
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %out, label %work
work:
  %front = load atomic i64, ptr %front.place monotonic, align 8
  call void @walk(ptr %context, i64 %generation, i64 %front, i64 %me, ptr null)
  br label %reset
wait:
  @PAUSE@
  %spins.next = add i64 %spins, 1
  %rounds = and i64 %spins.next, 31
  %due = icmp eq i64 %rounds, 0
  br i1 %due, label %time, label %spin
time:
  %now = call i64 @clock(ptr %context)
  %waited = sub i64 %now, %start
  %long = icmp sgt i64 %waited, %idle
  br i1 %long, label %slept, label %spin
spin:
  br label %look
slept:
  call void @sleep(ptr %context, i64 %seen)
  br label %look
out:
  ret void
}

define internal void @execute(ptr %context, ptr %io, ptr %stamps) {
entry:
  %patches.address = call i64 @field(ptr %context, i64 @PATCHES@)
  %patches = inttoptr i64 %patches.address to ptr
  %patch.count = call i64 @field(ptr %context, i64 @PATCH_COUNT@)
  %data = call i64 @field(ptr %context, i64 @DATA@)
  %objects = icmp ne i64 %data, 0
  %any = icmp ne i64 %patch.count, 0
  br i1 %any, label %patch, label %ready
patch:
  %number = phi i64 [0, %entry], [%number.next, %store]
  %offset = mul i64 %number, @PATCH@
  %entry.place = getelementptr i8, ptr %patches, i64 %offset
  %which = call i64 @field(ptr %entry.place, i64 0)
  %shift = call i64 @field(ptr %entry.place, i64 8)
  %to.address = call i64 @field(ptr %entry.place, i64 16)
  %to = inttoptr i64 %to.address to ptr
  %from.place = getelementptr i64, ptr %io, i64 %which
  %given = load i64, ptr %from.place, align 8
  br i1 %objects, label %array, label %store
array:
  %object = inttoptr i64 %given to ptr
  %data.place = getelementptr i8, ptr %object, i64 %data
  %data.address = load i64, ptr %data.place, align 8
  br label %store
store:
  %from = phi i64 [%given, %patch], [%data.address, %array]
  %address = add i64 %from, %shift
  store i64 %address, ptr %to, align 8
  %number.next = add i64 %number, 1
  %more = icmp ult i64 %number.next, %patch.count
  br i1 %more, label %patch, label %ready
ready:
  %stamping = icmp ne ptr %stamps, null
  br i1 %stamping, label %stamp, label %choose
stamp:
  %time = call i64 @clock(ptr %context)
  store i64 %time, ptr %stamps, align 8
  br label %choose
choose:
  %parallel = call i64 @field(ptr %context, i64 @PARALLEL@)
  %share = icmp ne i64 %parallel, 0
  br i1 %share, label %shared, label %alone
alone:
  call void @serial(ptr %context, ptr %stamps)
  ret void
shared:
  %front.place = getelementptr i8, ptr %context, i64 @FRONT@
  store atomic i64 0, ptr %front.place monotonic, align 8
  %word = getelementptr i8, ptr %context, i64 @GENERATION@
  %last = load atomic i64, ptr %word monotonic, align 8
  %generation = add i64 %last, 1
  store atomic i64 %generation, ptr %word seq_cst, align 8
  call void @wake(ptr %context)
  call void @walk(ptr %context, i64 %generation, i64 0, i64 0, ptr %stamps)
  %total = call i64 @field(ptr %context, i64 @TOTAL@)
  %all = mul i64 %generation, %total
  call void @await(ptr %context, i64 %all)
  ret void
}

define void @tinyinfer_stop(ptr %context) {
  %stop = getelementptr i8, ptr %context, i64 @STOP@
  store atomic i64 1, ptr %stop monotonic, align 8
  %word = getelementptr i8, ptr %context, i64 @GENERATION@
  %last = atomicrmw add ptr %word, i64 1 seq_cst, align 8
  call void @wake(ptr %context)
  ret void
}

define void @tinyinfer_run(ptr %context, ptr %io) {
  %old = call i64 @flush()
  call void @execute(ptr %context, ptr %io, ptr null)
  call void @restore(i64 %old)
  ret void
}

define void @tinyinfer_profile(ptr %context, ptr %io, ptr %stamps) {
  %old = call i64 @flush()
  call void @execute(ptr %context, ptr %io, ptr %stamps)
  call void @restore(i64 %old)
  ret void
}
"""

ENTRIES = ("tinyinfer_run", "tinyinfer_profile", "tinyinfer_worker", "tinyinfer_stop")


def driver_text(target: CpuTarget) -> str:
    """LLVM IR of the executor for `target`."""
    declare, pause = _PAUSE.get(target.architecture, ("", ""))
    values = {"DECLARE_PAUSE": declare, "PAUSE": pause, "FLUSH": _FLUSH.get(target.architecture, _NO_FLUSH)}
    numbers = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    values |= {name: str(value) for name, value in numbers.items()}
    text = _TEXT
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
