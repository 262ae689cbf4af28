"""Names and comments of emitted C, whatever a model calls its values."""

import re

import pytest

from tinyinfer.emit.c_names import comment, distinct, identifier

HOSTILE = [
    "",
    "int",
    "9lives",
    "a-b",
    "a.b",
    "a/b",
    "é",
    "x" * 300,
    "NULL",
    "*/",
    "a\nb",
    "__reserved",
    "main",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_identifiers_are_valid(text):
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,48}", identifier(text)) and identifier(text) not in (
        "int",
        "main",
    )


def test_names_are_distinct_also_as_macros():
    made = distinct([*HOSTILE, *HOSTILE, "Int", "A_B", "arena"], ["arena"])
    lowered = [m.lower() for m in made]
    assert len(set(lowered)) == len(lowered) and "arena" not in lowered


@pytest.mark.parametrize(
    "text", ["*/ int x;", "/* */", "??/", "line\nline", "ends with \\", "\u2028", "a*/*/b"]
)
def test_comments_stay_comments(text):
    made = comment(text)
    assert "*/" not in made and "/*" not in made and "??/" not in made
    assert made.isprintable() and made.isascii() and not made.endswith("\\")
