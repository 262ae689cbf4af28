"""A model as one WebAssembly module with a JavaScript module around it, which need nothing else.

The module imports nothing. Its memory holds from the bottom: nothing, stack, tables, arena, inputs, outputs,
weights. It exports `memory` and `run()`, and its custom section `tinyinfer` says as JSON where inputs and
outputs lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.compile import Progress, compile_kernels, support_object
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.cpu.wasm.link import PAGE, Memory, link_program
from tinyinfer.bundle.types import width
from tinyinfer.emit.wasm_program import POINTER, Program, called_kernels
from tinyinfer.errors import Fail
from tinyinfer.runtime.plan import KernelSource, Plan, TensorSpec

STACK_BOTTOM, STACK_BYTES = 1024, 1 << 20
ALIGNMENT = 64
MOST_BYTES = 1 << 32
_BLOCK, _GAP = 64, 1024
"""Zeros of a tensor are left out in blocks, unless they are so few that a segment's head is no less."""

ARRAYS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "float16": "Uint16Array",
    "bfloat16": "Uint16Array",
    "complex64": "Float32Array",
    "complex128": "Float64Array",
    "bool": "Uint8Array",
    "int8": "Int8Array",
    "int16": "Int16Array",
    "int32": "Int32Array",
    "int64": "BigInt64Array",
    "int4": "Int8Array",
    "int2": "Int8Array",
    "uint16": "Uint16Array",
    "uint32": "Uint32Array",
    "uint64": "BigUint64Array",
}
"""The typed array of a dtype; others are bytes."""

_MODULE = """\
// @ABOUT@
//
//   import { load } from './@NAME@.mjs';
//   const model = await load();
//   const outputs = model.run(inputs);
//
// Arrays are in row-major order. float16 and bfloat16 are a Uint16Array of their bits, bool a Uint8Array,
// complex numbers pairs. An input that the model was compiled for one value of may be left out.

/**
 * @typedef {{@INPUTS@}} Inputs
 * @typedef {{@OUTPUTS@}} Outputs
 */

/**
 * The model, from `@NAME@.wasm` beside this file, or from its bytes or a response of fetch.
 * @returns {Promise<Model>}
 */
export async function load(source = new URL('./@NAME@.wasm', import.meta.url)) {
  source = await source;
  if (source instanceof URL && source.protocol === 'file:') {
    source = await (await import('node:fs/promises')).readFile(source);
  } else if (source instanceof URL || typeof source === 'string') {
    source = await fetch(source);
  }
  if (typeof Response !== 'undefined' && source instanceof Response) {
    if (!source.ok) throw new Error(`the model could not be fetched: ${source.status}`);
    source = await source.arrayBuffer();
  }
  const module = await WebAssembly.compile(source);
  const [notes] = WebAssembly.Module.customSections(module, 'tinyinfer');
  const { inputs, outputs } = JSON.parse(new TextDecoder().decode(notes));
  return new Model(await WebAssembly.instantiate(module), inputs, outputs);
}

class Model {
  #memory; #run; #inputs; #outputs;

  constructor({ exports }, inputs, outputs) {
    this.#memory = exports.memory.buffer;
    this.#run = exports.run;
    this.#inputs = inputs;
    this.#outputs = outputs;
    const described = (values) => values.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
    /** [{ name, dtype, shape }] */
    this.inputs = described(inputs);
    this.outputs = described(outputs);
  }

  /**
   * @param {Inputs} feeds
   * @returns {Outputs}
   */
  run(feeds) {
    for (const name of Object.keys(feeds)) {
      if (!this.#inputs.some((x) => x.name === name)) throw new RangeError(`the model has no input ${name}`);
    }
    for (const { name, array, address, bytes, fixed } of this.#inputs) {
      const given = feeds[name], place = new Uint8Array(this.#memory, address, bytes);
      if (given === undefined) {
        if (fixed) continue;
        throw new RangeError(`input ${name} is missing`);
      }
      const right = given instanceof globalThis[array];
      if (!right) throw new TypeError(`input ${name} has to be a ${array}`);
      if (given.byteLength !== bytes) {
        const wanted = bytes / given.BYTES_PER_ELEMENT;
        throw new RangeError(`input ${name} has ${wanted} numbers, not ${given.length}`);
      }
      const content = new Uint8Array(given.buffer, given.byteOffset, bytes);
      if (fixed && content.some((x, i) => x !== place[i])) {
        throw new RangeError(`the model was compiled for another value of input ${name}`);
      }
      place.set(content);
    }
    this.#run();
    return Object.fromEntries(this.#outputs.map(({ name, array, address, bytes }) => [
      name, new globalThis[array](this.#memory.slice(address, address + bytes)),
    ]));
  }
}
"""


def emit_wasm(
    plan: Plan,
    target: CpuTarget,
    name: str,
    about: str,
    values: Mapping[str, np.ndarray] | None = None,
    threads: int = 1,
    cache: KernelCache | None = None,
    progress: Progress | None = None,
) -> dict[str, bytes | str]:
    """`NAME.wasm` and `NAME.mjs` of a plan that was made for a wasm32 `target`.

    `about` is a line for the head of the JavaScript module; `values` are the inputs that may have one value
    only. Raises KernelCompileError and LinkError naming the kernel, and Fail where 4 GiB of memory are not
    enough.
    """
    sources = {source.key: source for source in called_kernels(plan.launches)}
    kernels = {key: number for number, key in enumerate(sources)}
    layout = _Layout(plan, kernels)
    text = layout.program.text()
    main = KernelSource(f"wasm program/{text}", "run", lambda: text)
    objects = compile_kernels(list(sources.values()), target, threads, cache, progress)
    (made,) = compile_kernels([main], target, 1).values()
    fixed = values or {}
    interface = json.dumps(layout.interface(fixed), sort_keys=True, separators=(",", ":"))
    module = link_program(
        [(f"kernel {source.name}", objects[key]) for key, source in sources.items()],
        made,
        lambda needed: support_object(needed, target, cache),
        Memory(-(-layout.end // PAGE), STACK_BOTTOM + STACK_BYTES, layout.data(fixed)),
        {"tinyinfer": interface.encode()},
    )
    script = _MODULE
    for key, value in (
        ("ABOUT", " ".join(about.split())),
        ("NAME", name),
        ("INPUTS", _typed(plan.inputs, fixed)),
        ("OUTPUTS", _typed(plan.outputs, {})),
    ):
        script = script.replace(f"@{key}@", value)
    return {f"{name}.wasm": module, f"{name}.mjs": script}


def array_of(dtype: str) -> str:
    """The typed array that holds elements of a dtype."""
    return ARRAYS.get(dtype, "Uint8Array")


def _typed(specs: Sequence[TensorSpec], optional: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{json.dumps(spec.name)}{'?' if spec.name in optional else ''}: {array_of(spec.dtype)}"
        for spec in specs
    )


def _bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * width(spec.dtype)


class _Layout:
    """Where everything lies in the module's memory, and the program for that."""

    def __init__(self, plan: Plan, kernels: Mapping[str, int]):
        self.plan = plan
        self.tables = STACK_BOTTOM + STACK_BYTES
        sizes = {("arena", 0): plan.arena_bytes}
        for space, nbytes in (
            ("input", [_bytes(spec) for spec in plan.inputs]),
            ("output", [_bytes(spec) for spec in plan.outputs]),
            ("parameter", [array.nbytes for array in plan.parameters]),
        ):
            sizes |= {(space, number): size for number, size in enumerate(nbytes)}
        # the number of words does not depend on where buffers lie, which does on the number of words
        words = len(Program(plan.launches, dict.fromkeys(sizes, 0), kernels, self.tables).words)
        self.end = self.tables + POINTER * words
        self.bases = {key: self._take(size) for key, size in sizes.items()}
        if self.end > MOST_BYTES:
            raise Fail(f"the model needs {self.end} bytes of memory, more than the 4 GiB of WebAssembly")
        self.program = Program(plan.launches, self.bases, kernels, self.tables)

    def _take(self, size: int) -> int:
        start = -(-self.end // ALIGNMENT) * ALIGNMENT
        self.end = start + size
        return start

    def interface(self, fixed: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
        """What the JavaScript module must know."""
        return {
            f"{space}s": [
                {
                    "name": spec.name,
                    "dtype": spec.dtype,
                    "array": array_of(spec.dtype),
                    "shape": list(spec.shape),
                    "address": self.bases[space, number],
                    "bytes": _bytes(spec),
                    **({"fixed": True} if space == "input" and spec.name in fixed else {}),
                }
                for number, spec in enumerate(specs)
            ]
            for space, specs in (("input", self.plan.inputs), ("output", self.plan.outputs))
        }

    def data(self, fixed: Mapping[str, np.ndarray]) -> list[tuple[int, bytes]]:
        """What the memory holds at first, where that is not zero."""
        words = np.array(self.program.words, np.uint32)
        parts = [(self.tables, words)]
        for number, spec in enumerate(self.plan.inputs):
            if spec.name in fixed:
                parts.append((self.bases["input", number], np.ascontiguousarray(fixed[spec.name])))
        for number, array in enumerate(self.plan.parameters):
            parts.append((self.bases["parameter", number], np.ascontiguousarray(array)))
        return [segment for at, array in parts for segment in _segments(at, array.reshape(-1).view(np.uint8))]


def _segments(at: int, data: np.ndarray) -> list[tuple[int, bytes]]:
    """The parts of `data` that are not zero, as segments of the memory from `at` on."""
    if not data.size:
        return []
    starts = np.arange(0, data.size, _BLOCK)
    used = starts[np.logical_or.reduceat(data != 0, starts)]
    if not used.size:
        return []
    breaks = np.flatnonzero(np.diff(used) > _GAP)
    firsts, lasts = used[np.r_[0, breaks + 1]], used[np.r_[breaks, used.size - 1]]
    return [(at + int(a), data[a : b + _BLOCK].tobytes()) for a, b in zip(firsts, lasts)]
