/** `GOLD`: inputs, and the outputs that the model must have for them (docs/bundle.md). */

import { damaged, need, u64 } from './container.mjs';
import { BFLOAT16, FLOAT16, TYPES, elements, fromNumbers, toNumbers } from './elements.mjs';

const HEADER = 16, RECORD = 48;
const [STORED, FLOATS, INTEGERS] = [0, 1, 2];

/** The golden vectors of a section: [{ inputs: [array], outputs: [{ first, step, absolute, relative, wanted }] }]. */
export function goldenVectors({ bytes, view }, inputs, outputs) {
  need(bytes.length >= HEADER, damaged + 'golden vectors');
  const count = view.getUint32(0, true);
  const counts = [view.getUint32(4, true), view.getUint32(8, true)];
  need(counts[0] === inputs.length && counts[1] === outputs.length, damaged + 'golden vectors of another model');
  need(HEADER + RECORD * count * (counts[0] + counts[1]) <= bytes.length, damaged + 'golden vectors');
  const data = (offset, size) => {
    need(offset <= bytes.length && size <= bytes.length - offset, damaged + 'data of golden vectors');
    return bytes.subarray(offset, offset + size);
  };
  return Array.from({ length: count }, (_, number) => ({
    inputs: inputs.map((value, i) => inputOf(view, HEADER + RECORD * (number * counts[0] + i), value, data)),
    outputs: outputs.map((value, i) => {
      const at = HEADER + RECORD * (count * counts[0] + number * counts[1] + i);
      const [first, step, length] = [0, 8, 16].map((field) => u64(view, at + field));
      const [stated, relative] = [24, 32].map((field) => view.getFloat64(at + field, true));
      const absolute = Math.max(stated, value.tolerance);
      const all = value.bytes / TYPES[value.type][1];
      need(length === 0 || (step > 0 && first + (length - 1) * step < all), damaged + 'golden vectors');
      const wanted = elements(value.type, data(u64(view, at + 40), length * TYPES[value.type][1]));
      return { first, step, absolute, relative, wanted };
    }),
  }));
}

function inputOf(view, at, value, data) {
  const kind = view.getUint32(at, true), seed = view.getUint32(at + 4, true);
  const low = view.getFloat64(at + 8, true), high = view.getFloat64(at + 16, true);
  if (kind === STORED) {
    const size = u64(view, at + 32);
    need(size === value.bytes, damaged + 'golden input');
    return elements(value.type, data(u64(view, at + 24), size));
  }
  need(kind === FLOATS || kind === INTEGERS, damaged + `golden inputs of kind ${kind}`);
  const [, size, Kind] = TYPES[value.type];
  const count = (value.bytes / size) * (size / Kind.BYTES_PER_ELEMENT);
  const numbers = new Array(count);
  for (let i = 0; i < count; i++) {
    const h = hash(i, seed);
    numbers[i] = kind === FLOATS ? low + (high - low) * ((h >>> 8) / 2 ** 24) : low + scaled(h, high - low);
  }
  if (value.type === FLOAT16 || value.type === BFLOAT16) numbers.forEach((x, i) => (numbers[i] = Math.fround(x)));
  return fromNumbers(value.type, numbers);
}

function hash(i, seed) {
  let x = (Math.imul(i, 0x9e3779b9) + seed) | 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x21f0aaad);
  x ^= x >>> 15;
  x = Math.imul(x, 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

/** h · n >> 32, exactly. */
function scaled(h, n) {
  return n < 2 ** 21 ? Math.floor((h * n) / 2 ** 32) : Number((BigInt(h) * BigInt(n)) >> 32n);
}

/**
 * How far an output is from what is wanted: whether every element passes, and the error of the one that is farthest out of
 * its tolerance or nearest to its edge, with that tolerance.
 */
export function compare(type, got, { first, step, absolute, relative, wanted }) {
  const parts = TYPES[type][1] / wanted.BYTES_PER_ELEMENT;
  const picked = wanted.map((_, i) => got[(first + Math.floor(i / parts) * step) * parts + (i % parts)]);
  const [ours, theirs] = [picked, wanted].map((array) => toNumbers(type, array) ?? array);
  const worst = { error: 0, tolerance: absolute, passed: true };
  let farthest = 0;
  for (let i = 0; i < theirs.length; i++) {
    if (ours[i] === theirs[i] || Object.is(ours[i], theirs[i])) continue;
    const error = Math.abs(Number(ours[i] - theirs[i]));
    const tolerance = absolute + relative * Math.abs(Number(theirs[i]));
    const passed = error <= tolerance && error < Infinity;
    const distance = passed ? error / tolerance : Number.isNaN(error) ? Infinity : Math.max(1, error / tolerance);
    if (distance >= farthest) {
      farthest = distance;
      Object.assign(worst, { error, tolerance });
    }
    worst.passed &&= passed;
  }
  return worst;
}
