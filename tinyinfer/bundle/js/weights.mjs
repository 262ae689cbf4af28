/** `WIDX`, `WGHT`: stored tensors, and how a plan's parameters come from them (docs/bundle.md). */

import { damaged, need, u64 } from './container.mjs';
import { TYPES, elements, fromNumbers, toNumbers } from './elements.mjs';
import { RAW } from './plan.mjs';

const RECORD = 48;

/** Writes every parameter of `plan` to its place: `places[i]` are the bytes of memory of tensor i. */
export function fillTensors(plan, index, weights, places) {
  const count = index.bytes.length / RECORD;
  need(Number.isInteger(count), damaged + 'its list of weights');
  const stored = Array.from({ length: count }, (_, i) => {
    const offset = u64(index.view, RECORD * i + 32), size = u64(index.view, RECORD * i + 40);
    need(offset <= weights.bytes.length && size <= weights.bytes.length - offset, damaged + 'weights lie outside');
    return weights.bytes.subarray(offset, offset + size);
  });
  plan.tensors.forEach((tensor, i) => {
    need(tensor.stored < stored.length, damaged + 'a tensor without its weights');
    const given = stored[tensor.stored], place = places[i];
    if (tensor.encoding === RAW) {
      need(given.length === place.length, damaged + 'a tensor of another size than its weights');
      place.set(given);
    } else {
      expand(tensor, given, place);
    }
  });
}

/** Converts the stored elements and lays them out by runs; what no run covers stays zero. */
function expand(tensor, given, place) {
  const size = TYPES[tensor.type][1];
  need(given.length % TYPES[tensor.storedType][1] === 0, damaged + 'a tensor of broken elements');
  const values = converted(tensor, elements(tensor.storedType, given));
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const total = place.length / size, available = bytes.length / size;
  const runs = tensor.runs.length ? tensor.runs : [{ copied: available, left: 0, times: 1 }];
  let from = 0, to = 0;
  for (const { copied, left, times } of runs) {
    need(times > 0 && copied + left > 0, damaged + 'a tensor of empty runs');
    need(from + copied * times <= available && to + (copied + left) * times <= total, damaged + 'a tensor beyond its memory');
    for (let i = 0; i < times; i++) {
      place.set(bytes.subarray(from * size, (from + copied) * size), to * size);
      from += copied;
      to += copied + left;
    }
  }
  need(from === available, damaged + 'a tensor that leaves out some of its weights');
}

function converted(tensor, array) {
  if (tensor.type === tensor.storedType && tensor.added === 0n) return array;
  const numbers = toNumbers(tensor.storedType, array);
  need(numbers, damaged + 'a tensor is stored in a type that cannot be converted');
  if (tensor.added === 0n) return fromNumbers(tensor.type, numbers);
  const wide = numbers instanceof BigInt64Array || numbers instanceof BigUint64Array;
  const added = wide ? tensor.added : Number(tensor.added);
  return fromNumbers(tensor.type, Array.from(numbers, (x) => x + added));
}
