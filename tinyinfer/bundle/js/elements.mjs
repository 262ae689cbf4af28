/** Element types: arrays that hold them, and the exact conversion of stored elements to those in memory. */

/** By ONNX's number: name, bytes of an element, array of elements (halves of a complex number are two of its elements). */
export const TYPES = {
  1: ['float32', 4, Float32Array], 2: ['uint8', 1, Uint8Array], 3: ['int8', 1, Int8Array], 4: ['uint16', 2, Uint16Array],
  5: ['int16', 2, Int16Array], 6: ['int32', 4, Int32Array], 7: ['int64', 8, BigInt64Array], 9: ['bool', 1, Uint8Array],
  10: ['float16', 2, Uint16Array], 11: ['float64', 8, Float64Array], 12: ['uint32', 4, Uint32Array],
  13: ['uint64', 8, BigUint64Array], 14: ['complex64', 8, Float32Array], 15: ['complex128', 16, Float64Array],
  16: ['bfloat16', 2, Uint16Array], 17: ['float8_e4m3fn', 1, Uint8Array], 18: ['float8_e4m3fnuz', 1, Uint8Array],
  19: ['float8_e5m2', 1, Uint8Array], 20: ['float8_e5m2fnuz', 1, Uint8Array], 21: ['uint4', 1, Uint8Array],
  22: ['int4', 1, Int8Array], 23: ['float4_e2m1fn', 1, Uint8Array], 24: ['float8_e8m0fnu', 1, Uint8Array],
  25: ['uint2', 1, Uint8Array], 26: ['int2', 1, Int8Array], 27: ['float6_e2m3fn', 1, Uint8Array],
  28: ['float6_e3m2fn', 1, Uint8Array],
};

export const FLOAT16 = 10, BFLOAT16 = 16;
const TINY_FLOATS = [17, 18, 19, 20, 23, 24, 27, 28];

const words = new Uint32Array(1), single = new Float32Array(words.buffer);

/** The number that the 16 bits of a half-precision float are. */
export function halfToNumber(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24
    : exponent < 31 ? (1024 + fraction) * 2 ** (exponent - 25) : fraction ? NaN : Infinity;
  return bits & 0x8000 ? -size : size;
}

/** The 16 bits of the half-precision float nearest to a number, of two as near the even one. */
export function numberToHalf(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  single[0] = size;
  const exponent = Math.max(-14, (words[0] >> 23) - 127);
  // single precision may have rounded up to a power of two that the value does not reach
  const power = size < 2 ** exponent && exponent > -14 ? exponent - 1 : exponent;
  const scaled = size / 2 ** (power - 10);
  const below = Math.floor(scaled), rest = scaled - below;
  const rounded = below + (rest > 0.5 || (rest === 0.5 && below & 1) ? 1 : 0);
  // a normal number's leading bit adds one to the exponent field; so does a carry out of the fraction
  return sign | (((power + 14) << 10) + rounded);
}

/** Numbers (bigint for 64-bit integers) of elements of a type; nothing for floats of a byte or less. */
export function toNumbers(type, array) {
  if (TINY_FLOATS.includes(type)) return undefined;
  if (type === FLOAT16) return Float64Array.from(array, halfToNumber);
  if (type === BFLOAT16) {
    return Float64Array.from(array, (bits) => {
      words[0] = bits << 16;
      return single[0];
    });
  }
  return array;
}

/** Elements of a type from numbers, rounded to the nearest. */
export function fromNumbers(type, numbers) {
  const [, , Kind] = TYPES[type];
  if (type === FLOAT16) return Uint16Array.from(numbers, (x) => numberToHalf(Number(x)));
  if (type === BFLOAT16) {
    return Uint16Array.from(numbers, (x) => {
      single[0] = Number(x);
      return (words[0] + 0x7fff + ((words[0] >>> 16) & 1)) >>> 16;
    });
  }
  if (Kind === BigInt64Array || Kind === BigUint64Array) return Kind.from(numbers, BigInt);
  return Kind.from(numbers, Number);
}

/** A copy of bytes as elements of a type, wherever the bytes lie. */
export function elements(type, bytes) {
  const [, , Kind] = TYPES[type];
  return new Kind(bytes.slice().buffer);
}
