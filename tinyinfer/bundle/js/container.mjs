/** Bundles as files: header, table of contents, sections, signature (docs/bundle.md), all checked before any is used. */

/** A bundle that cannot be used; the message says why. */
export class BundleError extends Error {
  name = 'BundleError';
}

export function need(condition, message) {
  if (!condition) throw new BundleError(message);
}

export const damaged = 'the bundle is damaged or was changed: ';

const HEADER = 64, ENTRY = 96, MAX_SECTIONS = 1024, SIGNATURE = 96;
const MAGIC = [0x89, 0x54, 0x49, 0x4e, 0x46, 0x0d, 0x0a, 0x1a];
const CRITICAL = 1, ELSEWHERE = 2;
const PAGE_ALIGNED = ['CODE', 'WGHT'], OF_TARGET = ['PLAN', 'CODE'], NEEDED = ['MANI', 'WIDX', 'WGHT'];
const KINDS = ['MANI', 'PLAN', 'CODE', 'WIDX', 'WGHT', 'GOLD', 'PROV', 'TUNE', 'TRNG', 'SIGN'];

export async function bytesOf(source) {
  source = await source;
  if (typeof source === 'string' || source instanceof URL) {
    const url = new URL(source, globalThis.location?.href);
    if (url.protocol === 'file:') {
      const { readFile } = await import('node:fs/promises');
      return bytesOf(await readFile(url));
    }
    source = await fetch(url);
  }
  if (typeof Response !== 'undefined' && source instanceof Response) {
    need(source.ok, `the bundle could not be fetched: ${source.status} ${source.statusText}`);
    source = await source.arrayBuffer();
  }
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  throw new TypeError('a bundle is opened from its bytes, a response, or a URL');
}

let subtleCrypto;

async function subtle() {
  subtleCrypto ??= globalThis.crypto?.subtle;
  if (!subtleCrypto && globalThis.process?.versions?.node) subtleCrypto = (await import('node:crypto')).webcrypto.subtle;
  need(subtleCrypto, 'bundles are checked with crypto.subtle, which browsers offer to pages from https or localhost only');
  return subtleCrypto;
}

async function sha256(bytes) {
  return new Uint8Array(await (await subtle()).digest('SHA-256', bytes));
}

export function equal(a, b) {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

function joined(...parts) {
  const result = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The unsigned 64-bit number at `at`, which must be one that JavaScript holds exactly. */
export function u64(view, at) {
  const value = Number(view.getBigUint64(at, true));
  need(Number.isSafeInteger(value), damaged + 'a size is beyond all bounds');
  return value;
}

/** ASCII text that ends before the first of its zeros. */
function ascii(bytes) {
  return String.fromCharCode(...bytes).replace(/\0+$/, '');
}

function allZero(bytes) {
  return bytes.every((x) => x === 0);
}

export async function readSections(bytes, options) {
  need(bytes.length >= HEADER, 'this is no bundle: it is shorter than a header');
  const view = viewOf(bytes);
  need(MAGIC.every((x, i) => bytes[i] === x), 'this is no bundle: it does not begin as one');
  const major = view.getUint16(8, true);
  need(major === 1, `the bundle has format version ${major}; this loader reads version 1`);
  const count = view.getUint32(12, true);
  need(count >= 1 && count <= MAX_SECTIONS, damaged + `it claims ${count} sections`);
  const end = HEADER + ENTRY * count, size = u64(view, 16);
  need(size <= bytes.length, `the bundle is cut: ${bytes.length} of ${size} bytes`);
  need(size === bytes.length, damaged + `${bytes.length - size} bytes follow it`);
  need(end <= size, damaged + 'its table of contents lies beyond its end');
  const hash = await sha256(joined(bytes.subarray(0, 32), bytes.subarray(HEADER, end)));
  need(equal(hash, bytes.subarray(32, 64)), damaged + 'header or table of contents');

  const sections = [], gaps = [];
  let last = end;
  for (let i = 0; i < count; i++) {
    const at = HEADER + ENTRY * i;
    const kind = ascii(bytes.subarray(at, at + 4)), name = ascii(bytes.subarray(at + 64, at + ENTRY));
    const title = name ? `${kind} (${name})` : kind;
    const flags = view.getUint32(at + 4, true), group = view.getUint32(at + 24, true);
    const offset = u64(view, at + 8), length = u64(view, at + 16);
    need(KINDS.includes(kind) || !(flags & CRITICAL), `the bundle needs a newer loader: it has a section ${title}`);
    need(!(flags & ~(CRITICAL | ELSEWHERE)), damaged + `section ${title} has unknown flags`);
    if (KINDS.includes(kind)) {
      need(OF_TARGET.includes(kind) === group > 0, damaged + `section ${title} belongs to the wrong target`);
      need(!sections.some((s) => s.kind === kind && s.group === group), damaged + `section ${title} is there twice`);
    }
    need((kind === 'MANI') === (i === 0) && (kind !== 'SIGN' || i === count - 1), damaged + `section ${title} is misplaced`);
    const section = { kind, name, group, title, hash: bytes.subarray(at + 32, at + 64) };
    if (flags & ELSEWHERE) {
      const given = options.sections?.[kind];
      need(given, `the bundle's section ${title} is kept outside of it: hand it over as sections.${kind}`);
      section.bytes = await bytesOf(given);
      need(section.bytes.length === length, `the section ${title} that was handed over is not this bundle's`);
    } else {
      const alignment = PAGE_ALIGNED.includes(kind) ? 16384 : 64;
      need(offset % alignment === 0, damaged + `section ${title} is not aligned`);
      need(offset >= last && offset <= size && length <= size - offset, damaged + `section ${title} overlaps or lies outside`);
      gaps.push([last, offset]);
      last = offset + length;
      section.bytes = bytes.subarray(offset, last);
    }
    section.view = viewOf(section.bytes);
    sections.push(section);
  }
  gaps.push([last, size]);
  for (const [from, to] of gaps) need(allZero(bytes.subarray(from, to)), damaged + 'bytes outside of all sections');
  for (const kind of NEEDED) need(sections.some((s) => s.kind === kind), damaged + `there is no section ${kind}`);
  for (const one of sections.filter((s) => OF_TARGET.includes(s.kind))) {
    const other = sections.find((s) => s !== one && OF_TARGET.includes(s.kind) && s.group === one.group);
    need(other?.name === one.name, damaged + `section ${one.title} stands alone`);
  }
  const hashes = await Promise.all(sections.map((s) => sha256(s.bytes)));
  sections.forEach((s, i) => need(equal(hashes[i], s.hash), damaged + `section ${s.title}`));
  return sections;
}

export async function checkSignature(bytes, sections, { trustedKeys = [], requireSignature = false }) {
  const section = sections.find((s) => s.kind === 'SIGN');
  if (!section) {
    need(!requireSignature && !trustedKeys.length, 'the bundle is not signed, and a signature is required');
    return;
  }
  need(section.bytes.length === SIGNATURE, damaged + 'signature');
  const asked = requireSignature || trustedKeys.length > 0;
  const key = section.bytes.subarray(0, 32);
  const trusted = trustedKeys.map((k) => (typeof k === 'string' ? fromHexadecimal(k) : new Uint8Array(k)));
  need(!trusted.length || trusted.some((k) => equal(k, key)), 'the bundle is signed with a key that is not trusted');
  const text = new TextEncoder().encode('tinyinfer bundle signature 1\0');
  const contents = bytes.subarray(HEADER, HEADER + ENTRY * (sections.length - 1));
  const digest = await sha256(joined(text, bytes.subarray(0, 12), contents));
  const api = await subtle();
  let imported;
  try {
    imported = await api.importKey('raw', key, { name: 'Ed25519' }, false, ['verify']);
  } catch {
    need(!asked, "the bundle is signed, and this engine's crypto.subtle cannot check Ed25519 with its key");
    return;
  }
  const passed = await api.verify({ name: 'Ed25519' }, imported, section.bytes.subarray(32), digest);
  need(passed, "the bundle's signature is wrong");
}

function fromHexadecimal(text) {
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new TypeError('a trusted key is 32 bytes, or 64 hexadecimal digits');
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

export function decode(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new BundleError(damaged + 'a text is not UTF-8');
  }
}

export function parseJson(bytes) {
  try {
    return JSON.parse(decode(bytes));
  } catch {
    throw new BundleError(damaged + 'manifest');
  }
}
