/** `PLAN`: the tables of a target's plan; every reference is checked when it is read (docs/bundle.md). */

import { damaged, decode, need, u64, viewOf } from './container.mjs';
import { TYPES } from './elements.mjs';

export const PLAN_HEADER = 64;
const DIRECTORY_ENTRY = 16;
const RECORD_BYTES = [1, 8, 48, 56, 24, 16, 48, 32, 96];
const [STRINGS, DIMS, VALUES, TENSORS, RUNS, KERNELS, LAUNCHES, REFERENCES, LOOPS] = RECORD_BYTES.keys();
export const [NOWHERE, ARENA, TENSOR, INPUT, OUTPUT] = [0, 1, 2, 3, 4];
export const [RAW, EXPANDED] = [0, 1];
const POINTER_BYTES = 4, MOST_LAUNCHES = 1 << 20;

function check(condition, what) {
  need(condition, `${damaged}its plan: ${what}`);
}

/**
 * A plan as objects:
 *
 *   arenaBytes
 *   values     [{ name, type, shape, bytes, output, fixed: number of a tensor or undefined }]
 *   tensors    [{ stored, encoding, bytes, type, storedType, added, runs: [{ copied, left, times }] }]
 *   launches   [{ kernel: number of k<n>, chunks, arguments: [reference], loop }] of the plan itself
 *   kernels    numbers of the functions k<n> that it calls
 *
 * A reference is { space, number, offset, even, odd }; a loop is { launches, steps, arena, inputs, outputs, iteration,
 * cleared: [reference], before: [[to, from]], after: [[to, from]], count, enter, goOn, done }, where the last four
 * may be undefined. References inside of loops are local to them.
 */
export class Plan {
  constructor(bytes) {
    const view = viewOf(bytes);
    check(bytes.length >= PLAN_HEADER + DIRECTORY_ENTRY * RECORD_BYTES.length, 'it ends too early');
    check(view.getUint32(4, true) === POINTER_BYTES, 'its pointers are not those of wasm32');
    const end = PLAN_HEADER + DIRECTORY_ENTRY * view.getUint32(24, true);
    check(view.getUint32(24, true) >= RECORD_BYTES.length && end <= bytes.length, 'its directory of tables');
    this._view = view;
    this._bytes = bytes;
    this._made = 0;
    this._tables = RECORD_BYTES.map((least, i) => {
      const at = PLAN_HEADER + DIRECTORY_ENTRY * i;
      const [offset, count, size] = [0, 4, 8].map((field) => view.getUint32(at + field, true));
      check(offset % 8 === 0 && size >= least && offset + count * size <= bytes.length, `table ${i} lies outside`);
      return { offset, count, size };
    });
    let last = end;
    for (const table of [...this._tables].filter((t) => t.count).sort((a, b) => a.offset - b.offset)) {
      check(table.offset >= last, 'tables overlap');
      last = table.offset + table.count * table.size;
    }
    this.arenaBytes = u64(view, 16);
    this.tensors = this._all(TENSORS, (at) => this._tensor(at));
    this.values = this._all(VALUES, (at) => this._value(at));
    this.inputs = this.values.filter((v) => !v.output);
    this.outputs = this.values.filter((v) => v.output);
    check(this.values.every((v, i) => v.output === i >= this.inputs.length), 'outputs stand before inputs');
    for (const side of [this.inputs, this.outputs]) check(new Set(side.map((v) => v.name)).size === side.length, 'names');
    this.kernels = this._all(KERNELS, (at) => u64(view, at));
    const around = {
      [ARENA]: [this.arenaBytes],
      [TENSOR]: this.tensors.map((t) => t.bytes),
      [INPUT]: this.inputs.map((v) => v.bytes),
      [OUTPUT]: this.outputs.map((v) => v.bytes),
    };
    const first = view.getUint32(28, true), count = view.getUint32(32, true);
    this.launches = this._range(LAUNCHES, first, count, (at) => this._launch(at, around, []));
  }

  _range(table, first, count, read) {
    const { offset, count: all, size } = this._tables[table];
    check(first <= all && count <= all - first, `records of table ${table} that it does not have`);
    return Array.from({ length: count }, (_, i) => read(offset + (first + i) * size));
  }

  _all(table, read) {
    return this._range(table, 0, this._tables[table].count, read);
  }

  _u32(at) {
    return this._view.getUint32(at, true);
  }

  _text(at) {
    const first = this._u32(at), length = this._u32(at + 4);
    this._range(STRINGS, first, 0);
    const { offset, count, size } = this._tables[STRINGS];
    check(size === 1 && length <= count - first, 'a text lies outside');
    return decode(this._bytes.subarray(offset + first, offset + first + length));
  }

  _type(at) {
    const type = this._u32(at);
    check(type in TYPES, `element type ${type}`);
    return type;
  }

  _value(at) {
    const type = this._type(at + 8), bytes = u64(this._view, at + 24), fixed = this._u32(at + 32);
    const shape = this._range(DIMS, this._u32(at + 16), this._u32(at + 12), (x) => u64(this._view, x));
    const name = this._text(at), direction = this._u32(at + 20);
    check(shape.reduce((n, d) => n * d, TYPES[type][1]) === bytes, `size of ${name}`);
    check(direction <= 1 && fixed <= this.tensors.length, `record of ${name}`);
    check(!fixed || this.tensors[fixed - 1].bytes === bytes, `value of ${name}`);
    const tolerance = this._view.getFloat64(at + 40, true);
    check(tolerance >= 0 && tolerance < Infinity && (tolerance === 0 || direction === 1), `tolerance of ${name}`);
    return { name, type, shape, bytes, output: direction === 1, fixed: fixed ? fixed - 1 : undefined, tolerance };
  }

  _tensor(at) {
    const encoding = this._u32(at + 4), bytes = u64(this._view, at + 8);
    check(encoding === RAW || encoding === EXPANDED, `encoding ${encoding} of a tensor`);
    const runs = this._range(RUNS, this._u32(at + 32), this._u32(at + 36), (x) => ({
      copied: u64(this._view, x), left: u64(this._view, x + 8), times: u64(this._view, x + 16),
    }));
    const added = this._view.getBigInt64(at + 24, true);
    const [type, storedType] = [this._type(at + 16), this._type(at + 20)];
    return { stored: this._u32(at), encoding, bytes, type, storedType, added, runs };
  }

  /** `around` has the bytes of what references may name, by space; `outer` the numbers of the loops around. */
  _launch(at, around, outer) {
    check(++this._made <= MOST_LAUNCHES, 'loops of loops beyond all bounds');
    const chunks = u64(this._view, at + 16), loop = this._u32(at + 24);
    check(chunks <= 0x7fffffff, 'a launch has more chunks than any has');
    const [kernel] = this._range(KERNELS, this._u32(at), 1, (x) => u64(this._view, x));
    if (loop) return { kernel, chunks, arguments: [], loop: this._loop(loop - 1, around, outer) };
    const references = this._references(this._u32(at + 4), this._u32(at + 8), around);
    check(references.every((r) => r.space !== NOWHERE), 'a kernel without one of its arguments');
    return { kernel, chunks, arguments: references, loop: undefined };
  }

  _references(first, count, around) {
    return this._range(REFERENCES, first, count, (at) => {
      const space = this._u32(at), number = this._u32(at + 4), offset = u64(this._view, at + 8);
      const [even, odd] = [16, 24].map((field) => Number(this._view.getBigInt64(at + field, true)));
      check(space === NOWHERE || (space in around && number < around[space].length), 'a reference to nothing');
      check(space === NOWHERE || offset <= around[space][number], 'a reference past the end of a buffer');
      check(Number.isSafeInteger(even) && Number.isSafeInteger(odd), 'a place that moves beyond all bounds');
      return { space, number, offset, even, odd };
    });
  }

  _loop(number, around, outer) {
    check(!outer.includes(number), 'a loop inside of itself');
    return this._range(LOOPS, number, 1, (at) => {
      const list = (field) => this._references(this._u32(at + field), this._u32(at + field + 4), around);
      const place = (field) => this._references(this._u32(at + field), 1, around)[0];
      const pairs = (field) => {
        const both = this._references(this._u32(at + field), 2 * this._u32(at + field + 4), around);
        return both.flatMap((to, i) => (i % 2 ? [] : [[to, both[i + 1]]]));
      };
      const optional = (field) => ((r) => (r.space === NOWHERE ? undefined : r))(place(field));
      const arena = place(16), inputs = list(20), outputs = list(28), iteration = place(36);
      const rest = (r) => around[r.space][r.number] - r.offset;
      check([arena, iteration, ...inputs, ...outputs].every((r) => r.space !== NOWHERE), 'a loop without one of its places');
      const inside = {
        [ARENA]: [rest(arena)], [TENSOR]: around[TENSOR], [INPUT]: inputs.map(rest), [OUTPUT]: outputs.map(rest),
      };
      const loop = {
        launches: this._range(LAUNCHES, this._u32(at), this._u32(at + 4), (x) => this._launch(x, inside, [...outer, number])),
        steps: Math.min(Number(this._view.getBigUint64(at + 8, true)), Number.MAX_SAFE_INTEGER),
        arena, inputs, outputs, iteration,
        cleared: list(40), before: pairs(48), after: pairs(56),
        count: optional(64), enter: optional(68), goOn: optional(72), done: optional(76),
      };
      for (const cleared of loop.cleared) check(cleared.even >= 0 && cleared.even <= rest(cleared), 'a loop clears too much');
      for (const [to, from] of [...loop.before, ...loop.after]) {
        check(to.odd >= 0 && to.odd <= rest(to) && to.odd <= rest(from), 'a loop copies too much');
      }
      return loop;
    })[0];
  }
}
