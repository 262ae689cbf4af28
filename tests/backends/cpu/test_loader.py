"""Objects into memory: every kind of reference, by the project's loader and by MCJIT."""

import ctypes
import math
import sys

import pytest

from tinyinfer.backends.cpu import loader
from tinyinfer.backends.cpu.compile import compile_object

TEXT = """
@table = internal constant [4 x double] [double 1.0, double 2.0, double 4.0, double 8.0]
@shared = constant [2 x double] [double 0.5, double 0.25]
@pointers = internal constant [2 x ptr] [ptr @one, ptr @two]
declare double @expm1(double)
declare double @fmod(double, double)

define internal double @one(double %x) { ret double %x }
define internal double @two(double %x) {
  %y = fmul double %x, 2.0
  ret double %y
}
define double @constant(i64 %i) {
  %at = getelementptr double, ptr @table, i64 %i
  %v = load double, ptr %at
  %other.at = getelementptr double, ptr @shared, i64 1
  %other = load volatile double, ptr %other.at
  %sum = fadd double %v, %other
  ret double %sum
}
define double @outside(double %x) {
  %a = call double @expm1(double %x)
  %b = call double @fmod(double %a, double 3.0)
  %c = call double @expm1(double %b)
  ret double %c
}
define double @indirect(i64 %i, double %x) {
  %at = getelementptr ptr, ptr @pointers, i64 %i
  %f = load ptr, ptr %at
  %v = call double %f(double %x)
  ret double %v
}
define i64 @choose(i64 %i) {
  switch i64 %i, label %other [
    i64 0, label %a i64 1, label %b i64 2, label %c i64 3, label %d i64 4, label %e
  ]
a: ret i64 100
b: ret i64 -7
c: ret i64 33
d: ret i64 12345
e: ret i64 8
other: ret i64 0
}
"""
NAMES = ["constant", "outside", "indirect", "choose"]
elf_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF")


def check(loaded, number):
    double, integer = ctypes.c_double, ctypes.c_int64
    constant = ctypes.CFUNCTYPE(double, integer)(loaded.address(number, "constant"))
    assert [constant(i) for i in range(4)] == [1.25, 2.25, 4.25, 8.25]
    outside = ctypes.CFUNCTYPE(double, double)(loaded.address(number, "outside"))
    assert outside(1.5) == pytest.approx(math.expm1(math.fmod(math.expm1(1.5), 3.0)))
    indirect = ctypes.CFUNCTYPE(double, integer, double)(loaded.address(number, "indirect"))
    assert (indirect(0, 3.0), indirect(1, 3.0)) == (3.0, 6.0)
    choose = ctypes.CFUNCTYPE(integer, integer)(loaded.address(number, "choose"))
    assert [choose(i) for i in range(6)] == [100, -7, 33, 12345, 8, 0]


@pytest.fixture(scope="module")
def objects(target):
    plain = "define i64 @f(i64 %x) {\n  %y = add i64 %x, 5\n  ret i64 %y\n}"
    return [compile_object(TEXT, target), compile_object(plain, target), compile_object(TEXT, target)]


def test_load_chooses_what_works(objects, target):
    loaded = loader.load(objects, [NAMES, ["f"], NAMES], target)
    check(loaded, 0)
    check(loaded, 2)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address(1, "f"))(1) == 6
    assert loaded.address(0, "constant") != loaded.address(2, "constant")


@elf_only
def test_elf(objects):
    loaded = loader.load_elf(objects)
    check(loaded, 0)
    check(loaded, 2)
    assert loaded.address(1, "any name of the only function") == loaded.address(1, "f")
    with pytest.raises(KeyError):
        loaded.address(0, "missing")


def test_mcjit(objects, target):
    loaded = loader.load_mcjit(objects, [NAMES, ["f"], NAMES], target)
    check(loaded, 0)
    check(loaded, 2)


@elf_only
@pytest.mark.parametrize(
    "text",
    [
        "@x = global i64 3\ndefine i64 @f() {\n  %v = load i64, ptr @x\n  ret i64 %v\n}",
        "declare i64 @no_such_function()\ndefine i64 @f() {\n  %v = call i64 @no_such_function()\n"
        "  ret i64 %v\n}",
    ],
    ids=["variable", "unknown function"],
)
def test_what_the_loader_does_not_know(target, text):
    with pytest.raises(loader.Unsupported):
        loader.load_elf([compile_object(text, target)])


@elf_only
def test_a_function_of_no_library_is_an_error_in_words(target):
    text = "declare i64 @no_such_function()\ndefine i64 @f() {\n  %v = call i64 @no_such_function()\n"
    text += "  ret i64 %v\n}"
    with pytest.raises(loader.MissingFunction, match="no_such_function"):
        loader.load([compile_object(text, target)], [["f"]], target)


def test_variables_go_through_mcjit(target):
    text = "@x = global i64 3\ndefine i64 @f() {\n  %v = load i64, ptr @x\n  store i64 4, ptr @x\n"
    text += "  ret i64 %v\n}"
    loaded = loader.load([compile_object(text, target)], [["f"]], target)
    function = ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address(0, "f"))
    assert (function(), function()) == (3, 4)


@elf_only
@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\0" * 100, b"x" * 1000])
def test_no_object(data):
    with pytest.raises(loader.Unsupported):
        loader.load_elf([data])
