/** A plan in WebAssembly memory: where everything lies, and the walk over its launches and loops. */

import { BundleError, damaged, need } from './container.mjs';
import { ARENA, INPUT, OUTPUT, TENSOR } from './plan.mjs';

const PAGE = 65536, MOST_PAGES = 65536, ALIGNMENT = 64;
const STACK_BOTTOM = 1024, STACK_BYTES = 1 << 20;
const POINTER = 4;

/** Iterations over `t` before `count` of them are over that are even, and odd ones. */
const evens = (count) => Math.floor((count + 1) / 2);
const odds = (count) => Math.floor(count / 2);

/** Addresses are handed out from the bottom of the memory: stack, tables, arena, inputs, outputs, tensors. */
export class Engine {
  constructor(plan) {
    this._words = [];
    this._place = [];
    this._next = STACK_BOTTOM + STACK_BYTES;
    this._tables = this._next;
    // the tables' size does not depend on where the buffers lie, so they are made for buffers at 0 to learn it
    this._bases = { [ARENA]: [0], [INPUT]: plan.inputs.map(() => 0), [OUTPUT]: plan.outputs.map(() => 0) };
    this._bases[TENSOR] = plan.tensors.map(() => 0);
    this._launches(plan.launches, undefined);
    this._next += POINTER * this._words.length;
    this._bases[ARENA] = [this._take(plan.arenaBytes)];
    this._bases[INPUT] = plan.inputs.map((v) => this._take(v.bytes));
    this._bases[OUTPUT] = plan.outputs.map((v) => this._take(v.bytes));
    this._bases[TENSOR] = plan.tensors.map((t) => this._take(t.bytes));
    this._words = [];
    this._program = this._launches(plan.launches, undefined);

    const pages = Math.ceil(this._next / PAGE);
    need(pages <= MOST_PAGES, `the model needs ${(this._next / 2 ** 30).toFixed(1)} GiB, more than the 4 of WebAssembly`);
    try {
      this.memory = new WebAssembly.Memory({ initial: pages });
    } catch {
      throw new BundleError(`the engine has no memory of ${pages * PAGE} bytes for the model`);
    }
    this._bytes = new Uint8Array(this.memory.buffer);
    this._view = new DataView(this.memory.buffer);
    this._table = new Int32Array(this.memory.buffer, this._tables, this._words.length);
    this._table.set(this._words);
    const region = (space, sizes) => sizes.map((x, i) => this._bytes.subarray(this._bases[space][i], this._bases[space][i] + x.bytes));
    this.inputs = region(INPUT, plan.inputs);
    this.outputs = region(OUTPUT, plan.outputs);
    this.tensors = region(TENSOR, plan.tensors);
    this._kernels = plan.kernels;
  }

  /** Binds the code. */
  async instantiate(module) {
    const stack = new WebAssembly.Global({ value: 'i32', mutable: true }, STACK_BOTTOM + STACK_BYTES);
    let instance;
    try {
      instance = await WebAssembly.instantiate(module, { env: { memory: this.memory, stack_pointer: stack } });
    } catch (error) {
      throw new BundleError(`the bundle's code for wasm32 cannot be used: ${error.message}`);
    }
    const { exports } = instance;
    const known = [...this._kernels.map((n) => `k${n}`), 'run'].every((name) => typeof exports[name] === 'function');
    need(known, damaged + 'its code lacks a kernel');
    this._call = exports.run;
  }

  /** One run; inputs and outputs lie in the memory. */
  run() {
    this._walk(this._program);
  }

  _take(size) {
    const start = Math.ceil(this._next / ALIGNMENT) * ALIGNMENT;
    this._next = start + size;
    return start;
  }

  // ---- tables: a word is the address of one place, as an index of `_words`

  /** Launches with their arguments in words; those of a loop with a `loop` of words. */
  _launches(launches, scope) {
    return launches.map((launch) => {
      if (launch.loop) return { loop: this._loop(launch.loop, scope) };
      const words = launch.arguments.map((r) => this._word(r, scope));
      return { kernel: launch.kernel, chunks: launch.chunks, arguments: this._tables + POINTER * (words[0] ?? 0) };
    });
  }

  _loop(loop, outer) {
    const scope = { loop, outer, cursors: [] };
    const optional = (r) => (r ? this._word(r, outer) : undefined);
    const made = { steps: loop.steps, cursors: scope.cursors, launches: this._launches(loop.launches, scope) };
    for (const name of ['iteration', 'count', 'enter', 'goOn', 'done']) made[name] = optional(loop[name]);
    made.cleared = loop.cleared.map((r) => [this._word(r, outer), r.even]);
    made.before = loop.before.map(([to, from]) => [this._word(to, outer), this._word(from, outer), to.odd]);
    made.after = loop.after.map(([to, from]) => {
      const target = this._word(to, outer);
      const source = this._words.push(0) - 1;
      this._words[source] = this._moving(source, from, 0, scope);
      return [target, source, to.odd];
    });
    return made;
  }

  /** A new word with the address of a reference among the launches of `scope`'s loop, or of the plan. */
  _word(reference, scope) {
    const word = this._words.push(0) - 1;
    this._words[word] = this._address(word, reference, reference.offset, scope);
    return word;
  }

  _address(word, { space, number }, offset, scope) {
    if (scope && space !== TENSOR) {
      const { loop, outer } = scope;
      if (space === ARENA) return this._address(word, loop.arena, loop.arena.offset + offset, outer);
      return this._moving(word, (space === INPUT ? loop.inputs : loop.outputs)[number], offset, scope);
    }
    return this._bases[space][number] + offset;
  }

  /** The address of a place that moves with the iterations of `scope`'s loop, which becomes one of its cursors. */
  _moving(word, place, offset, scope) {
    if (place.even || place.odd) scope.cursors.push([word, place.even, place.odd]);
    return this._address(word, place, place.offset + offset, scope.outer);
  }

  // ---- running

  _walk(launches) {
    for (const { kernel, arguments: address, chunks, loop } of launches) {
      if (loop) this._iterate(loop);
      else this._call(kernel, address, chunks);
    }
  }

  _at(word) {
    return this._table[word] >>> 0;
  }

  _holds(word) {
    return word === undefined || this._bytes[this._at(word)] !== 0;
  }

  _copy([to, from, size]) {
    this._bytes.copyWithin(this._at(to), this._at(from), this._at(from) + size);
  }

  _move(cursors, evenly, oddly) {
    for (const [word, even, odd] of cursors) this._table[word] += even * evenly + odd * oddly;
  }

  _iterate(loop) {
    for (const [word, size] of loop.cleared) this._bytes.fill(0, this._at(word), this._at(word) + size);
    loop.before.forEach((copy) => this._copy(copy));
    let most = loop.steps;
    if (loop.count !== undefined) most = Math.min(most, Number(this._view.getBigInt64(this._at(loop.count), true)));
    let t = 0;
    for (let going = this._holds(loop.enter); going && t < most; going = this._holds(loop.goOn)) {
      this._view.setBigInt64(this._at(loop.iteration), BigInt(t), true);
      this._walk(loop.launches);
      this._move(loop.cursors, 1 - (t & 1), t & 1);
      t++;
    }
    loop.after.forEach((copy) => this._copy(copy));
    this._move(loop.cursors, -evens(t), -odds(t));
    if (loop.done !== undefined) this._view.setBigInt64(this._at(loop.done), BigInt(t), true);
  }
}
