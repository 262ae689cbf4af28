"""Regular expressions of RE2: its syntax, matched in time linear in the text.

ONNX names RE2 for RegexFullMatch. A backtracking matcher would let a model hang its host, so the expression
is compiled to a program of characters, forks and assertions, and all its threads run at once; the sets of
threads that occur are remembered. Sources: https://github.com/google/re2/wiki/Syntax; R. Cox, "Regular
Expression Matching: the Virtual Machine Approach" (2009).
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

LARGEST = 0x10FFFF
MOST_REPEATS = 1000
"""RE2's own limit for counted repetition."""

MOST_INSTRUCTIONS = 100_000
MOST_REMEMBERED = 10_000
MOST_NESTED = 100

Ranges = tuple[tuple[int, int], ...]
DIGIT: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
POSIX: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": DIGIT,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
PERL = {"d": DIGIT, "w": WORD, "s": SPACE}
CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All characters outside of `ranges`."""
    result, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= LARGEST:
        result.append((start, LARGEST))
    return tuple(result)


@lru_cache(maxsize=16)
def category(name: str) -> Ranges:
    """The characters of a general category of Unicode ("L", "Lu")."""
    result: list[tuple[int, int]] = []
    for code in range(LARGEST + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if result and result[-1][1] == code - 1:
                result[-1] = (result[-1][0], code)
            else:
                result.append((code, code))
    if not result:
        raise ValueError(f"the character class \\p{{{name}}} is not known")
    return tuple(result)


# ---- the parts of an expression


@dataclass(frozen=True)
class Characters:
    """One character of a set; `fold` takes upper and lower case for the same."""

    ranges: Ranges
    negated: bool = False
    fold: bool = False

    def has(self, c: str) -> bool:
        """Whether the character is one of the set."""
        same = {c, c.lower(), c.upper()} if self.fold else {c}
        return any(self._within(ord(s)) for s in same if len(s) == 1) != self.negated

    def _within(self, code: int) -> bool:
        place = bisect.bisect_right(self.ranges, (code, LARGEST)) - 1
        return place >= 0 and self.ranges[place][0] <= code <= self.ranges[place][1]


@dataclass(frozen=True)
class Assertion:
    """A place in the text: "text start", "text end", "line start", "line end", "border", "no border"."""

    kind: str


@dataclass(frozen=True)
class Sequence:
    """Parts one after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Choice:
    """One of several parts."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Repeat:
    """A part `least` to `most` times; None: without limit."""

    part: Part
    least: int
    most: int | None


Part = Characters | Assertion | Sequence | Choice | Repeat


class _Parser:
    def __init__(self, pattern: str):
        self.pattern, self.at, self.nested = pattern, 0, 0
        self.flags: frozenset[str] = frozenset()

    def fail(self, message: str) -> ValueError:
        return ValueError(f"the regular expression {self.pattern!r} is not one of RE2: {message}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, text: str) -> bool:
        """Whether `text` comes next; it is passed then."""
        found = self.peek(text)
        self.at += len(text) if found else 0
        return found

    def next(self) -> str:
        if self.at >= len(self.pattern):
            raise self.fail("it ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def until(self, end: str) -> str:
        """The text before `end`, which is passed as well."""
        stop = self.pattern.find(end, self.at)
        if stop < 0:
            raise self.fail(f"a '{end}' is missing")
        text, self.at = self.pattern[self.at : stop], stop + len(end)
        return text

    def whole(self) -> Part:
        part = self.choice()
        if self.at < len(self.pattern):
            raise self.fail("a ')' is too many")
        return part

    def choice(self) -> Part:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self) -> Part:
        parts: list[Part] = []
        while self.at < len(self.pattern) and not self.peek("|") and not self.peek(")"):
            if self.take("\\Q"):
                quoted = "\\E" in self.pattern[self.at :]
                text = self.until("\\E") if quoted else self.pattern[self.at :]
                self.at = self.at if quoted else len(self.pattern)
                parts += [self.single(ord(c)) for c in text]
            else:
                found = self.atom()
                if found is not None:
                    parts.append(found)
            if parts:
                parts[-1] = self.repeated(parts[-1])
        return Sequence(tuple(parts))

    def repeated(self, part: Part) -> Part:
        bounds = self.bounds()
        if bounds is None:
            return part
        self.take("?")  # which of several matches is found does not matter here
        if self.bounds() is not None:
            raise self.fail("a repetition is repeated")
        return Repeat(part, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        """The bounds of a repetition that comes next, which is passed."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.take(sign):
                return bounds
        if not self.peek("{"):
            return None
        stop = self.pattern.find("}", self.at)
        least, comma, most = self.pattern[self.at + 1 : max(stop, self.at + 1)].partition(",")
        digits = [t for t in (least, most) if t]
        if stop < 0 or not least or not all(t.isascii() and t.isdigit() for t in digits):
            return None  # a brace like any other character
        self.at = stop + 1
        low = int(least)
        high = low if not comma else int(most) if most else None
        if low > MOST_REPEATS or (high is not None and not low <= high <= MOST_REPEATS):
            raise self.fail(f"a repetition of {{{least}{comma}{most}}}")
        return low, high

    def single(self, code: int) -> Characters:
        return Characters(((code, code),), fold="i" in self.flags)

    def atom(self) -> Part | None:
        c = self.next()
        if c == "(":
            return self.group()
        if c == "[":
            return self.bracket()
        if c == ".":
            return Characters(((0, LARGEST),) if "s" in self.flags else ((0, 9), (11, LARGEST)))
        if c == "^":
            return Assertion("line start" if "m" in self.flags else "text start")
        if c == "$":
            return Assertion("line end" if "m" in self.flags else "text end")
        if c in "*+?":
            raise self.fail(f"'{c}' repeats nothing")
        return self.escape() if c == "\\" else self.single(ord(c))

    def group(self) -> Part | None:
        before = self.flags
        if self.take("?"):
            if self.take("P<") or (self.peek("<") and not self.peek("<=") and not self.peek("<!")):
                self.take("<")
                if not self.until(">").replace("_", "a").isalnum():
                    raise self.fail("a group has no name")
            elif not self.group_flags():
                return None
        self.nested += 1
        if self.nested > MOST_NESTED:
            raise self.fail(f"groups are nested more than {MOST_NESTED} deep")
        part = self.choice()
        if not self.take(")"):
            raise self.fail("a ')' is missing")
        self.nested -= 1
        self.flags = before
        return part

    def group_flags(self) -> bool:
        """Pass flags; whether a group follows them, or they hold for the rest of the group around them."""
        on = True
        while True:
            c = self.next()
            if c in ":)":
                return c == ":"
            if c == "-":
                on = False
            elif c in "imsU":
                self.flags = self.flags | {c} if on else self.flags - {c}
            else:
                raise self.fail(f"'(?{c}' is unknown")

    def escape(self) -> Part:
        c = self.next()
        places = {"A": "text start", "z": "text end", "b": "border", "B": "no border"}
        if c in places:
            return Assertion(places[c])
        if c == "C":
            return Characters(((0, LARGEST),))
        found = self.escaped_set(c)
        return Characters(*found, fold="i" in self.flags) if found else self.single(self.escaped_code(c))

    def escaped_set(self, c: str) -> tuple[Ranges, bool] | None:
        """The set of \\d, \\pL and the like, and whether it is negated."""
        if c.lower() in PERL:
            return PERL[c.lower()], c.isupper()
        if c not in "pP":
            return None
        name = self.next()
        name = self.until("}") if name == "{" else name
        inverse = name.startswith("^")
        name = name.removeprefix("^")
        return ((0, LARGEST),) if name == "Any" else category(name), (c == "P") != inverse

    def escaped_code(self, c: str) -> int:
        """The one character that an escape stands for."""
        if c in CONTROL:
            return CONTROL[c]
        if c == "x":
            digits = self.until("}") if self.take("{") else self.next() + self.next()
            try:
                code = int(digits, 16)
            except ValueError:
                code = -1
            if not 0 <= code <= LARGEST:
                raise self.fail(f"\\x{digits} is no character")
            return code
        if c == "0" or (c in "1234567" and self.pattern[self.at : self.at + 1] in tuple("01234567")):
            digits = c
            while len(digits) < 3 and self.pattern[self.at : self.at + 1] in tuple("01234567"):
                digits += self.next()
            return int(digits, 8)
        if c.isascii() and c.isalnum():
            raise self.fail(f"'\\{c}' is unknown")
        return ord(c)

    def bracket(self) -> Characters:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self.take("]"):
            first = False
            if self.take("[:"):
                name = self.until(":]")
                if name.removeprefix("^") not in POSIX:
                    raise self.fail(f"the class [:{name}:] is unknown")
                found = POSIX[name.removeprefix("^")]
                ranges += complement(found) if name.startswith("^") else found
                continue
            low = self.bracket_item(ranges)
            if low is None:
                continue
            high = low
            if self.peek("-") and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                end = self.bracket_item([])
                if end is None or end < low:
                    raise self.fail("a range of characters ends before it starts")
                high = end
            ranges.append((low, high))
        return Characters(_merged(ranges), negated, "i" in self.flags)

    def bracket_item(self, ranges: list[tuple[int, int]]) -> int | None:
        """One character; or None for a set, which goes to `ranges`."""
        c = self.next()
        if c != "\\":
            return ord(c)
        c = self.next()
        found = self.escaped_set(c)
        if found is None:
            return self.escaped_code(c)
        ranges += complement(found[0]) if found[1] else found[0]
        return None


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    return complement(complement(ranges))


# ---- the program


@dataclass
class Program:
    """Instructions by number. `step[i]` is a set and the next instruction, `forks[i]` where a thread goes on
    without reading, `checks[i]` an assertion and the next; instruction 0 is the match."""

    step: dict[int, tuple[Characters, int]]
    forks: dict[int, tuple[int, ...]]
    checks: dict[int, tuple[str, int]]
    start: int = 0
    count: int = 1

    def add(self) -> int:
        """The number of a new instruction."""
        self.count += 1
        if self.count > MOST_INSTRUCTIONS:
            raise ValueError(f"the regular expression needs more than {MOST_INSTRUCTIONS} instructions")
        return self.count - 1

    def emit(self, part: Part, after: int) -> int:
        """The instruction where `part` starts, that goes on at `after`."""
        if isinstance(part, Sequence):
            for inner in reversed(part.parts):
                after = self.emit(inner, after)
            return after
        if isinstance(part, Choice):
            here = self.add()
            self.forks[here] = tuple(self.emit(p, after) for p in part.parts)
            return here
        if isinstance(part, Repeat):
            return self.repeat(part, after)
        here = self.add()
        if isinstance(part, Assertion):
            self.checks[here] = (part.kind, after)
        else:
            self.step[here] = (part, after)
        return here

    def repeat(self, part: Repeat, after: int) -> int:
        """The instructions of a repetition: its least number of copies, then optional ones or a loop."""
        if part.most is None:
            loop = self.add()
            self.forks[loop] = (self.emit(part.part, loop), after)
            after = loop
        else:
            end = after
            for _ in range(part.most - part.least):
                here = self.add()
                self.forks[here] = (self.emit(part.part, after), end)
                after = here
        for _ in range(part.least):
            after = self.emit(part.part, after)
        return after


Threads = frozenset[int]


def _kind(c: str | None) -> str:
    """What assertions know of a character; None is the edge of the text."""
    if c is None:
        return "edge"
    return "line" if c == "\n" else "word" if c.isascii() and (c.isalnum() or c == "_") else "other"


def _holds(assertion: str, before: str, after: str) -> bool:
    return {
        "text start": before == "edge",
        "text end": after == "edge",
        "line start": before in ("edge", "line"),
        "line end": after in ("edge", "line"),
        "border": (before == "word") != (after == "word"),
        "no border": (before == "word") == (after == "word"),
    }[assertion]


def _closure(program: Program, threads: Threads, before: str, after: str) -> Threads:
    """All instructions that threads reach without reading a character."""
    reached, stack = set(threads), list(threads)
    while stack:
        here = stack.pop()
        following = program.forks.get(here, ())
        check = program.checks.get(here)
        if check is not None and _holds(check[0], before, after):
            following = (check[1],)
        stack += [n for n in following if n not in reached]
        reached.update(following)
    return frozenset(reached)


def full_matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether the whole of a text matches; ValueError where `pattern` is none of RE2."""
    program = Program({}, {}, {})
    program.start = program.emit(_Parser(pattern).whole(), 0)
    remembered: dict[tuple[Threads, str, str], Threads] = {}

    def matches(text: str) -> bool:
        threads: Threads = frozenset((program.start,))
        before = "edge"
        for c in text:
            key = (threads, before, c)
            found = remembered.get(key)
            if found is None:
                live = _closure(program, threads, before, _kind(c))
                moves = (program.step[i] for i in live if i in program.step)
                found = frozenset(after for characters, after in moves if characters.has(c))
                if len(remembered) >= MOST_REMEMBERED:
                    remembered.clear()
                remembered[key] = found
            if not found:
                return False
            threads, before = found, _kind(c)
        return 0 in _closure(program, threads, before, "edge")

    return matches
