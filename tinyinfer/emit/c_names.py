"""Valid and distinct C names, and comments that end where they should, whatever a model calls its values."""

from __future__ import annotations

import re
from collections.abc import Iterable

KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int
    long register restrict return short signed sizeof static struct switch typedef union unsigned void
    volatile while bool true false asm typeof class new delete this template typename namespace public private
    protected virtual operator friend using try catch throw and or not xor main errno NULL INFINITY NAN y0 y1
    yn j0 j1 jn""".split()
)
"""Words that C or C++ reserves, or that the C library uses for what includes of a generated file may
declare."""

LONGEST = 40
"""Characters of a name; compilers tell at least 63 apart."""


def identifier(text: str, fallback: str = "value") -> str:
    """A C identifier like `text`: ASCII letters, digits and single underscores, no reserved word."""
    made = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", text)).strip("_")[:LONGEST].rstrip("_")
    if not made:
        return fallback
    return f"{fallback}_{made}" if made[0].isdigit() or made in KEYWORDS else made


def distinct(texts: Iterable[str], taken: Iterable[str] = (), fallback: str = "value") -> list[str]:
    """An identifier for each text; none occurs twice, differs from another by case only, or is in `taken`."""
    used = {t.lower() for t in taken}
    found = []
    for text in texts:
        stem = name = identifier(text, fallback)
        number = 1
        while name.lower() in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name.lower())
        found.append(name)
    return found


def comment(text: str) -> str:
    """`text` as it may stand inside a comment on one line."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    return re.sub(r"/(?=\*)|\*(?=/)|\?(?=\?)", r"\g<0> ", shown).rstrip("\\")
