"""The header and the source file of a library that is made of a bundle."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tinyinfer.backends.cpu.code_image import ALIGNMENT as CODE_ALIGNMENT
from tinyinfer.bundle.container import ALIGNMENT
from tinyinfer.emit.c_names import comment, distinct
from tinyinfer.runtime.plan import TensorSpec

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "complex64": "float",
    "complex128": "double",
    "bool": "uint8_t",
    "int4": "int8_t",
    "int2": "int8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""The C type of an element; other dtypes are bytes. Halves and bytes hold the bits of the number, bools are 0
or 1, and a complex number is two of its type."""

CODES = {
    "OK": 0,
    "ERROR_FORMAT": 2,
    "ERROR_HASH": 3,
    "ERROR_TARGET": 5,
    "ERROR_MEMORY": 6,
    "ERROR_ARGUMENT": 7,
    "ERROR_INPUT": 8,
    "ERROR_LIMIT": 9,
    "ERROR_VERIFY": 10,
}
"""What functions return: those of the runtime's `ti_code` that a library may meet."""

_FUNCTIONS = (
    *("init", "run", "verify", "close", "error"),
    *("context", "context_open", "context_run", "context_close"),
)


def symbols(prefix: str) -> list[str]:
    """The functions that the header declares, and its codes."""
    codes = [f"{prefix.upper()}_{code}" for code in CODES]
    return [*(f"{prefix}_{function}" for function in _FUNCTIONS), *codes]


def own_words() -> set[str]:
    """Identifiers of the source file that do not begin with a library's name."""
    return set(re.findall(r"\w+", _SOURCE))


@dataclass(frozen=True)
class Blob:
    """Bytes that the source file takes in from a file."""

    symbol: str
    data: bytes
    file: str


@dataclass(frozen=True)
class Interface:
    """What a library offers. `fixed` are numbers of inputs that may have one value only, and `targets` are in
    order of preference; `arena_bytes` is enough for all of them."""

    name: str
    about: str
    architecture: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    fixed: Collection[int]
    arena_bytes: int
    targets: Sequence[str]

    @property
    def macro(self) -> str:
        return self.name.upper()

    @property
    def parameters(self) -> list[str]:
        """The header's name of each input and output."""
        own = ("context", "arena", "threads", *symbols(self.name))
        return distinct((spec.name for spec in (*self.inputs, *self.outputs)), own)

    def declared(self, names: Sequence[str]) -> str:
        """Parameters for all inputs and outputs, with these names."""
        heads = [f"const {_c_type(spec)} *" for spec in self.inputs]
        heads += [f"{_c_type(spec)} *" for spec in self.outputs]
        return ", ".join(head + name for head, name in zip(heads, names))


def _c_type(spec: TensorSpec) -> str:
    return C_TYPES.get(spec.dtype, "uint8_t")


def _joined(*parameters: str) -> str:
    return ", ".join(text for text in parameters if text)


def _elements(spec: TensorSpec) -> int:
    """Of the C type."""
    return prod(spec.shape) * (2 if spec.dtype.startswith("complex") else 1)


def header(x: Interface) -> str:
    """The text of `NAME.h`."""
    named = x.declared(x.parameters)
    return _HEADER.format(
        n=x.name,
        m=x.macro,
        title=f"{comment(x.about)}, " if x.about else "",
        targets=", ".join(x.targets),
        alignment=ALIGNMENT,
        arena_bytes=x.arena_bytes,
        values="\n".join(_described(x)),
        codes=",\n".join(f"  {x.macro}_{name} = {number}" for name, number in CODES.items()),
        named=named or "void",
        context_named=_joined(f"{x.name}_context *context, void *arena", named),
    )


def _described(x: Interface) -> Iterator[str]:
    """What each input and output is, with its size as a macro."""
    specs = [("input", spec) for spec in x.inputs] + [("output", spec) for spec in x.outputs]
    for number, ((kind, spec), parameter) in enumerate(zip(specs, x.parameters)):
        shape = ", ".join(map(str, spec.shape))
        only = "; it may have one value only" if number in x.fixed else ""
        yield f'/* {kind} "{comment(spec.name)}": {spec.dtype} [{shape}]{only} */'
        yield f"#define {x.macro}_{kind.upper()}_{parameter.upper()}_SIZE {_elements(spec)}"


_HEADER = """\
/* {title}compiled by tinyinfer for {targets} (Linux).
 *
 * Functions return 0, or a code whose reason in words {n}_error() has. Arrays are row-major. Bools are
 * bytes of 0 or 1; half precision and smaller floats are passed as their bits, complex numbers as pairs. A
 * program links libm and pthreads. */
#ifndef {m}_LIBRARY_H
#define {m}_LIBRARY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Bytes of memory for intermediate values. */
#define {m}_ARENA_BYTES {arena_bytes}

/* Numbers of elements. */
{values}

/* FORMAT, HASH: the model inside is damaged. TARGET: this machine cannot run its code. ARGUMENT: wrong use of
 * a function. INPUT: an input that may have one value only has another. LIMIT: a loop ran too long. VERIFY: a
 * golden vector failed. */
enum {{
{codes}
}};

/* Checks the model and starts `threads` threads, the caller's among them (0: one a core, at most 256). Other
 * functions do it with 0 where it has not been done. An error where it has. */
int {n}_init(unsigned threads);

/* Runs the model. Threads may call it at once: they take turns. Arrays are aligned as their elements are, and
 * no output overlaps another array. Intermediate values lie in static memory. */
int {n}_run({named});

/* Runs the golden vectors: 0 where this machine computes what was computed where the model was compiled. */
int {n}_verify(void);

/* Ends the threads and frees what was allocated; the next run starts anew. An error while there are
 * contexts. */
int {n}_close(void);

/* What went wrong last in this thread, to be read after a function failed. */
const char *{n}_error(void);

/* A context runs at the same time as others, one run at a time each, on `threads` threads of its own (0: as
 * many as the model has; where contexts do all the work, {n}_init(1) comes first). NULL where it cannot be
 * made. */
typedef struct {n}_context {n}_context;
{n}_context *{n}_context_open(unsigned threads);

/* `arena`: {m}_ARENA_BYTES at a multiple of {alignment}, or NULL for memory that the context keeps. */
int {n}_context_run({context_named});
void {n}_context_close({n}_context *context);

#ifdef __cplusplus
}}
#endif

#endif
"""


def source(x: Interface, blobs: Sequence[Blob]) -> str:
    """The text of `NAME.c`: the runtime, the bundle (the first of `blobs`) with the code of each target (the
    others), and the functions of the header."""
    bundle, *codes = blobs
    declared = "\n".join(
        f'extern const unsigned char {blob.symbol}[] __attribute__((visibility("hidden")));' for blob in blobs
    )
    tables = ",\n".join(
        f'    {{"{target}", {blob.symbol}, {len(blob.data)}}}' for target, blob in zip(x.targets, codes)
    )
    names = [f"input_{number}" for number in range(len(x.inputs))]
    outputs = [f"output_{number}" for number in range(len(x.outputs))]
    parameters = x.declared([*names, *outputs])
    asserted = "\n".join(
        f'_Static_assert((int){x.macro}_{code} == (int)TI_{code}, "not the code of the runtime");'
        for code in CODES
    )
    return _SOURCE.format(
        n=x.name,
        bundle_data=_data(bundle, ".rodata.tinyinfer", "a", ALIGNMENT, x.architecture),
        code_data="\n".join(
            _data(blob, ".text.tinyinfer", "ax", CODE_ALIGNMENT, x.architecture) for blob in codes
        ),
        declared=declared,
        asserted=asserted,
        tables=tables,
        bundle=bundle.symbol,
        bundle_bytes=len(bundle.data),
        alignment=ALIGNMENT,
        arena_bytes=max(x.arena_bytes, 1),
        parameters=parameters or "void",
        context_parameters=_joined(f"{x.name}_context *context, void *arena", parameters),
        inputs=", ".join(names) or "NULL",
        outputs=", ".join(outputs) or "NULL",
    )


def _data(blob: Blob, section: str, flags: str, alignment: int, architecture: str) -> str:
    """A file's bytes in a section of their own."""
    lines = [f'.pushsection {section}.{blob.symbol}, \\"{flags}\\", %progbits']
    if architecture == "riscv64":
        # else the assembler leaves the alignment to the linker, with as many bytes to remove
        lines += [".option push", ".option norelax"]
    lines += [f".balign {alignment}", f".type {blob.symbol}, %object", f"{blob.symbol}:"]
    lines += [f'.incbin \\"{blob.file}\\"', f".size {blob.symbol}, . - {blob.symbol}"]
    if architecture == "riscv64":
        lines += [".option pop"]
    text = "\n".join(f'    "{line}\\n"' for line in [*lines, ".popsection"])
    return f"__asm__(\n{text});"


_SOURCE = """\
#define TI_API static
#include "tinyinfer.c"

#pragma GCC visibility push(default)
#include "{n}.h"
#pragma GCC visibility pop

{asserted}

{bundle_data}
{code_data}

{declared}

static const struct {{
  const char *name;
  const unsigned char *code;
  size_t size;
}} library_targets[] = {{
{tables}}};

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows but the error */
static ti_model *library_model;
static size_t library_contexts;
static _Alignas({alignment}) unsigned char library_arena[{arena_bytes}];

static _Thread_local ti_error library_error;

static ti_code library_wrong_use(const char *text) {{
  library_error.code = TI_ERROR_ARGUMENT;
  (void)snprintf(library_error.text, sizeof library_error.text, "%s", text);
  return TI_ERROR_ARGUMENT;
}}

/* With the lock held: opens the model for the first target that this machine can run. */
static ti_code library_open(unsigned threads) {{
  for (size_t i = 0; library_model == NULL && i < sizeof library_targets / sizeof *library_targets; i++) {{
    ti_options options = {{0}};
    options.threads = threads;
    options.target = library_targets[i].name;
    options.code = library_targets[i].code;
    options.code_size = library_targets[i].size;
    library_model = ti_open_memory({bundle}, {bundle_bytes}, &options, &library_error);
    if (library_model == NULL && library_error.code != TI_ERROR_TARGET) break;
  }}
  return library_model != NULL ? TI_OK : library_error.code;
}}

int {n}_init(unsigned threads) {{
  (void)pthread_mutex_lock(&library_lock);
  ti_code code = library_model != NULL ? library_wrong_use("{n}_init: it runs already; {n}_close ends it")
                                       : library_open(threads);
  (void)pthread_mutex_unlock(&library_lock);
  return (int)code;
}}

int {n}_run({parameters}) {{
  const void *const inputs[] = {{{inputs}}};
  void *const outputs[] = {{{outputs}}};
  (void)pthread_mutex_lock(&library_lock);
  ti_code code = library_open(0);
  if (code == TI_OK) code = ti_run(library_model, inputs, outputs, library_arena, &library_error);
  (void)pthread_mutex_unlock(&library_lock);
  return (int)code;
}}

int {n}_verify(void) {{
  (void)pthread_mutex_lock(&library_lock);
  ti_code code = library_open(0);
  if (code == TI_OK) code = ti_verify(library_model, NULL, NULL, &library_error);
  (void)pthread_mutex_unlock(&library_lock);
  return (int)code;
}}

int {n}_close(void) {{
  ti_code code = TI_OK;
  (void)pthread_mutex_lock(&library_lock);
  if (library_contexts != 0) {{
    code = library_wrong_use("{n}_close: there are contexts that are not closed");
  }} else {{
    ti_close(library_model);
    library_model = NULL;
  }}
  (void)pthread_mutex_unlock(&library_lock);
  return (int)code;
}}

const char *{n}_error(void) {{
  static const char head[] = "bundle: ";
  const char *text = ti_error_text(&library_error);
  return strncmp(text, head, sizeof head - 1) == 0 ? text + sizeof head - 1 : text;
}}

{n}_context *{n}_context_open(unsigned threads) {{
  ti_context *context = NULL;
  (void)pthread_mutex_lock(&library_lock);
  if (library_open(0) == TI_OK) context = ti_context_open(library_model, threads, &library_error);
  library_contexts += context != NULL ? 1 : 0;
  (void)pthread_mutex_unlock(&library_lock);
  return ({n}_context *)(void *)context;
}}

int {n}_context_run({context_parameters}) {{
  const void *const inputs[] = {{{inputs}}};
  void *const outputs[] = {{{outputs}}};
  if (context == NULL) return (int)library_wrong_use("{n}_context_run: no context was given");
  return (int)ti_context_run((ti_context *)(void *)context, inputs, outputs, arena, &library_error);
}}

void {n}_context_close({n}_context *context) {{
  if (context == NULL) return;
  ti_context_close((ti_context *)(void *)context);
  (void)pthread_mutex_lock(&library_lock);
  library_contexts--;
  (void)pthread_mutex_unlock(&library_lock);
}}
"""
