"""Relocatable WebAssembly objects as LLVM writes them for kernels: functions, what they call, and the few
relocations of their code."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyinfer.backends.cpu.wasm import binary
from tinyinfer.backends.cpu.wasm.binary import Reader, WasmFormatError

FUNCTION_INDEX, TYPE_INDEX, GLOBAL_INDEX, TABLE_NUMBER = 0, 6, 7, 20
"""Relocation types: a padded LEB128 number in the code that the linker knows."""

PADDED = 5
"""Bytes of a number that is to be relocated."""

STACK_POINTER, MEMORY, INDIRECT_TABLE = "__stack_pointer", "__linear_memory", "__indirect_function_table"

_FUNCTION_SYMBOL, _DATA_SYMBOL, _GLOBAL_SYMBOL, _SECTION_SYMBOL, _TAG_SYMBOL, _TABLE_SYMBOL = range(6)
_LOCAL, _UNDEFINED, _EXPLICIT_NAME = 0x02, 0x10, 0x40
_LINKING_VERSION, _SYMBOL_TABLE = 2, 8


@dataclass(frozen=True)
class Relocation:
    """The number at `offset` of a function's code is `kind` of `index`: a symbol, for TYPE_INDEX a type."""

    kind: int
    offset: int
    index: int


@dataclass(frozen=True)
class Symbol:
    """What a relocation speaks of. `index` counts the object's functions, imported ones first, where it is
    one."""

    function: bool
    name: str
    index: int
    local: bool
    undefined: bool


@dataclass
class Function:
    """One function: its type's number in the object, and its code (locals and body) with relocations."""

    type: int
    code: bytes
    relocations: list[Relocation] = field(default_factory=list)


@dataclass
class WasmObject:
    """The parts of a relocatable object that matter here."""

    types: list[bytes] = field(default_factory=list)
    imports: list[int] = field(default_factory=list)
    """Types of the imported functions."""
    functions: list[Function] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)

    def defined(self) -> dict[str, int]:
        """Functions that other objects may call, by name."""
        return {
            s.name: s.index - len(self.imports)
            for s in self.symbols
            if s.function and not s.local and not s.undefined
        }

    def called(self) -> set[str]:
        """Names of the functions that must come from elsewhere."""
        return {s.name for s in self.symbols if s.function and s.undefined}


def parse_object(data: bytes) -> WasmObject:
    """The object in `data`. Raises WasmFormatError where it is damaged or holds what kernels do not: data,
    globals, or relocations of other types."""
    reader = Reader(data)
    if reader.bytes(len(binary.MAGIC)) != binary.MAGIC:
        raise WasmFormatError("no WebAssembly object")
    result = WasmObject()
    imported_names: list[str] = []
    types: list[int] = []
    starts: list[int] = []
    relocations: list[Relocation] = []
    while reader:
        number, content = reader.byte(), reader.block()
        if number == binary.TYPE:
            result.types = [_function_type(content) for _ in range(content.unsigned())]
        elif number == binary.IMPORT:
            imported_names = _imports(content, result)
        elif number == binary.FUNCTION:
            types = [content.unsigned() for _ in range(content.unsigned())]
        elif number == binary.CODE:
            starts = _code(content, types, result)
        elif number == binary.CUSTOM:
            title = content.name()
            if title == "linking":
                result.symbols = _symbols(content, imported_names)
            elif title == "reloc.CODE":
                relocations = _relocations(content)
        else:
            raise WasmFormatError(f"a kernel's object has a section of number {number}")
    _share_out(relocations, starts, result)
    return result


def _function_type(content: Reader) -> bytes:
    start = content.at
    if content.byte() != 0x60:
        raise WasmFormatError("a type that is not a function's")
    for _ in range(2):
        content.bytes(content.unsigned())
    return content.data[start : content.at]


def _imports(content: Reader, result: WasmObject) -> list[str]:
    """Notes the types of imported functions; returns their names."""
    names = []
    for _ in range(content.unsigned()):
        content.name()
        name, kind = content.name(), content.byte()
        if kind == binary.FUNCTION_KIND:
            result.imports.append(content.unsigned())
            names.append(name)
        elif kind == binary.GLOBAL_KIND and name == STACK_POINTER:
            content.bytes(2)
        elif (kind, name) in ((binary.MEMORY_KIND, MEMORY), (binary.TABLE_KIND, INDIRECT_TABLE)):
            if kind == binary.TABLE_KIND:
                content.byte()
            flags = content.byte()
            for _ in range(1 + (flags & 1)):
                content.unsigned()
        else:
            raise WasmFormatError(f"a kernel's object imports {name}")
    return names


def _code(content: Reader, types: list[int], result: WasmObject) -> list[int]:
    """Notes the functions; returns where each one's code starts in the section."""
    if content.unsigned() != len(types):
        raise WasmFormatError("functions without code, or code without functions")
    starts = []
    for number in types:
        size = content.unsigned()
        starts.append(content.at)
        result.functions.append(Function(number, content.bytes(size)))
    return starts


def _symbols(content: Reader, imported: list[str]) -> list[Symbol]:
    if content.unsigned() != _LINKING_VERSION:
        raise WasmFormatError("an unknown version of linking information")
    while content:
        kind, part = content.byte(), content.block()
        if kind == _SYMBOL_TABLE:
            return [_symbol(part, imported) for _ in range(part.unsigned())]
    return []


def _symbol(part: Reader, imported: list[str]) -> Symbol:
    kind, flags = part.byte(), part.unsigned()
    undefined = bool(flags & _UNDEFINED)
    if kind not in (_FUNCTION_SYMBOL, _GLOBAL_SYMBOL, _TABLE_SYMBOL):
        raise WasmFormatError("a kernel's object holds data")
    index = part.unsigned()
    named = not undefined or bool(flags & _EXPLICIT_NAME)
    name = part.name() if named else imported[index] if kind == _FUNCTION_SYMBOL else ""
    return Symbol(kind == _FUNCTION_SYMBOL, name, index, bool(flags & _LOCAL), undefined)


def _relocations(content: Reader) -> list[Relocation]:
    content.unsigned()
    result = []
    for _ in range(content.unsigned()):
        kind, offset, index = content.byte(), content.unsigned(), content.unsigned()
        if kind not in (FUNCTION_INDEX, TYPE_INDEX, GLOBAL_INDEX, TABLE_NUMBER):
            raise WasmFormatError(f"a kernel's object has a relocation of type {kind}")
        result.append(Relocation(kind, offset, index))
    return result


def _share_out(relocations: list[Relocation], starts: list[int], result: WasmObject) -> None:
    """Gives each function its relocations, at offsets in its own code; both are in ascending order."""
    number = 0
    for item in sorted(relocations, key=lambda r: r.offset):
        while number + 1 < len(starts) and starts[number + 1] <= item.offset:
            number += 1
        function = result.functions[number]
        offset = item.offset - starts[number]
        if not 0 <= offset <= len(function.code) - PADDED:
            raise WasmFormatError("a relocation outside of the code")
        function.relocations.append(Relocation(item.kind, offset, item.index))
