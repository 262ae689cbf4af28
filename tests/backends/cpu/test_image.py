"""Objects into one image that runs wherever it is mapped, and what is refused."""

import ctypes
import math
import sys

import pytest

from tinyinfer.backends.cpu.code_image import CodeImage
from tinyinfer.backends.cpu.compile import KernelCompileError, compile_object, link_sources
from tinyinfer.backends.cpu.image import LinkError, read_object
from tinyinfer.backends.cpu.loader import MappedCode, map_file, map_image
from tinyinfer.runtime.plan import KernelSource

TEXT = """
@table = internal constant [4 x double] [double 1.0, double 2.0, double 4.0, double 8.0]
@shared = constant [2 x double] [double 0.5, double 0.25]
declare double @fmod(double, double)

define double @constant(i64 %i) {
  %at = getelementptr double, ptr @table, i64 %i
  %v = load double, ptr %at
  %other.at = getelementptr double, ptr @shared, i64 1
  %other = load volatile double, ptr %other.at
  %sum = fadd double %v, %other
  ret double %sum
}
"""
CALLS = """
declare double @fmod(double, double)
define double @outside(double %x) {
  %b = call double @fmod(double %x, double 3.0)
  %c = call double @fmod(double %b, double 0.75)
  ret double %c
}
"""
CHOOSE = """
define i64 @choose(i64 %i) #0 {
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
attributes #0 = { "no-jump-tables"="true" }
"""
TEXTS = {"constant": TEXT, "outside": CALLS, "choose": CHOOSE}
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def source(name: str, text: str) -> KernelSource:
    return KernelSource(name, name, lambda: text)


@pytest.fixture(scope="module")
def image(target) -> CodeImage:
    return link_sources({name: source(name, text) for name, text in TEXTS.items()}, target)


def check(mapped: MappedCode) -> None:
    addresses = mapped.addresses
    double, integer = ctypes.c_double, ctypes.c_int64
    constant = ctypes.CFUNCTYPE(double, integer)(addresses["constant"])
    assert [constant(i) for i in range(4)] == [1.25, 2.25, 4.25, 8.25]
    outside = ctypes.CFUNCTYPE(double, double)(addresses["outside"])
    assert outside(8.7) == math.fmod(math.fmod(8.7, 3.0), 0.75)
    choose = ctypes.CFUNCTYPE(integer, integer)(addresses["choose"])
    assert [choose(i) for i in range(6)] == [100, -7, 33, 12345, 8, 0]


@posix
def test_an_image_runs_in_memory(image):
    check(map_image(image))


@posix
def test_an_image_runs_from_a_file_at_any_page(image, tmp_path):
    path = tmp_path / "code"
    path.write_bytes(bytes(3 << 14) + image.code)
    for _ in range(2):
        with open(path, "rb") as file:
            mapped = map_file(file.fileno(), 3 << 14, len(image.code), image.entries)
        check(mapped)
    with open(path, "rb") as file:
        with pytest.raises(OSError, match="page"):
            map_file(file.fileno(), 100, 50, image.entries)
        with pytest.raises(OSError, match="cannot be mapped"):
            map_file(file.fileno(), 3 << 14, 1 << 30, image.entries)


def test_the_same_objects_give_the_same_bytes(image, target):
    assert link_sources({name: source(name, text) for name, text in TEXTS.items()}, target) == image


def test_kernels_of_the_same_name_do_not_meet(target):
    first, second = (f"define i64 @f() {{\n  ret i64 {i}\n}}" for i in (5, 7))
    image = link_sources(
        {"a": KernelSource("a", "f", lambda: first), "b": KernelSource("b", "f", lambda: second)}, target
    )
    assert image.entries["a"] != image.entries["b"]


def test_the_only_function_answers_to_every_name(target):
    text = "define i64 @f() {\n  ret i64 5\n}"
    image = link_sources({"a": KernelSource("a", "name", lambda: text)}, target)
    assert set(image.entries) == {"a"}
    two = text + text.replace("@f", "@g")
    with pytest.raises(LinkError, match="kernel name: defines f, g, not name"):
        link_sources({"a": KernelSource("a", "name", lambda: two)}, target)


@pytest.mark.parametrize(
    "text",
    [
        "@x = global i64 3\ndefine i64 @f() {\n  %v = load i64, ptr @x\n  store i64 4, ptr @x\n"
        "  ret i64 %v\n}",
        "@pointers = internal constant [2 x ptr] [ptr @f, ptr @f]\ndefine i64 @f(i64 %i) {\n"
        "  %at = getelementptr ptr, ptr @pointers, i64 %i\n  %v = load i64, ptr %at\n  ret i64 %v\n}",
    ],
    ids=["a variable", "a table of addresses"],
)
def test_data_with_addresses_is_refused(target, text):
    with pytest.raises(LinkError, match="kernel f: section .data"):
        link_sources({"f": source("f", text)}, target)


def test_an_unknown_function_is_an_error_in_words(target):
    text = "declare i64 @no_such_function()\ndefine i64 @f() {\n  %v = call i64 @no_such_function()\n"
    text += "  ret i64 %v\n}"
    with pytest.raises(KernelCompileError, match=f"kernel f: it calls no_such_function.*{target.triple}"):
        link_sources({"f": source("f", text)}, target)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\0" * 100, b"x" * 1000])
def test_no_object(data):
    with pytest.raises(LinkError, match="kernel k: not a relocatable ELF object"):
        read_object(data, "kernel k", "x86_64")


def test_a_damaged_object_is_refused(target):
    data = compile_object(TEXT, target)
    for cut in range(0, len(data), 37):
        with pytest.raises(LinkError):
            read_object(data[:cut], "kernel k", target.architecture)


def test_an_object_of_another_machine_is_refused(target):
    data = compile_object(TEXT, target)
    other = "aarch64" if target.architecture != "aarch64" else "x86_64"
    with pytest.raises(LinkError, match=f"not of {other}"):
        read_object(data, "kernel k", other)
