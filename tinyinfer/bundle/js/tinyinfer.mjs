/**
 * Runs tinyinfer bundles (docs/bundle.md) that hold code for wasm32: in Node 18 and newer, and in browsers.
 *
 *   import { open } from './tinyinfer.mjs';
 *   const model = await open(fetch('model.tinf'));
 *   const { scores } = model.run({ image: new Float32Array(3 * 224 * 224) });
 *
 * Nothing of a bundle is used before its hashes, its signature where there is one, and the references of its plan have been
 * checked. Hashes and signatures are the platform's (`crypto.subtle`): a page must come over https or from localhost.
 */

import { BundleError, bytesOf, checkSignature, damaged, equal, need, parseJson, readSections } from './container.mjs';
import { TYPES } from './elements.mjs';
import { Engine } from './engine.mjs';
import { compare, goldenVectors } from './golden.mjs';
import { PLAN_HEADER, Plan } from './plan.mjs';
import { fillTensors } from './weights.mjs';

export { BundleError };

const WASM32 = 5;
const FEATURES = ['simd128', 'relaxed-simd'];

/**
 * A model from a bundle: its bytes, a URL, or a response of fetch.
 *
 * Options: `target` names the target to use instead of the first that runs here; `trustedKeys` are the Ed25519 public keys
 * (32 bytes, or hexadecimal) of which one must have signed the bundle; `requireSignature` refuses an unsigned one; `sections`
 * has the bytes of sections that are kept outside of the file, by kind. Rejects with BundleError.
 */
export async function open(source, options = {}) {
  const bytes = await bytesOf(source);
  const sections = await readSections(bytes, options);
  await checkSignature(bytes, sections, options);
  const only = (kind) => sections.find((s) => s.kind === kind);
  const target = chooseTarget(sections, options.target);
  const plan = new Plan(target.plan.bytes);
  const engine = new Engine(plan);
  fillTensors(plan, only('WIDX'), only('WGHT'), engine.tensors);
  let module;
  try {
    module = await WebAssembly.compile(target.code.bytes);
  } catch (error) {
    throw new BundleError(`the code of target ${target.name} is not WebAssembly that this engine runs: ${error.message}`);
  }
  await engine.instantiate(module);
  return new Model(parseJson(only('MANI').bytes), target.name, plan, engine, only('GOLD'));
}

/** A model that is ready to run. `manifest` is the bundle's, `target` the name of the code that runs. */
class Model {
  constructor(manifest, target, plan, engine, golden) {
    const described = (values) => values.map(({ name, type, shape }) => ({ name, dtype: TYPES[type][0], shape: [...shape] }));
    this.manifest = manifest;
    this.target = target;
    /** [{ name, dtype, shape }] */
    this.inputs = described(plan.inputs);
    this.outputs = described(plan.outputs);
    this._plan = plan;
    this._engine = engine;
    this._golden = golden;
  }

  /**
   * The outputs for inputs by name: typed arrays in row-major order. int64 is a BigInt64Array, float16 and bfloat16 are
   * a Uint16Array of their bits, bool a Uint8Array, complex64 a Float32Array of pairs. An input that the bundle was made for
   * one value of may be left out. Throws TypeError and RangeError for inputs of another kind or size.
   */
  run(feeds) {
    const { inputs, outputs, tensors: weights } = this._engine;
    for (const name of Object.keys(feeds)) {
      if (!this.inputs.some((x) => x.name === name)) throw new RangeError(`the model has no input ${name}`);
    }
    this._plan.inputs.forEach((value, i) => {
      const fixed = value.fixed === undefined ? undefined : weights[value.fixed];
      const given = feeds[value.name] === undefined && fixed ? fixed : checked(value, feeds[value.name]);
      if (fixed && !equal(given, fixed)) throw new RangeError(`the bundle was made for another value of input ${value.name}`);
      inputs[i].set(given);
    });
    this._engine.run();
    return Object.fromEntries(this._plan.outputs.map((value, i) => [value.name, new TYPES[value.type][2](outputs[i].slice().buffer)]));
  }

  /**
   * Runs the bundle's golden vectors: [{ output, error, tolerance, passed }], where error and tolerance are those of the element
   * that is farthest out of its tolerance, or nearest to it. Rejects with BundleError where the bundle has none.
   */
  async verify() {
    need(this._golden, 'the bundle has no golden vectors to verify it with');
    const { inputs, outputs } = this._plan;
    return goldenVectors(this._golden, inputs, outputs).flatMap((vector) => {
      const results = this.run(Object.fromEntries(inputs.map((value, i) => [value.name, vector.inputs[i]])));
      return outputs.map((value, i) => ({ output: value.name, ...compare(value.type, results[value.name], vector.outputs[i]) }));
    });
  }
}

/** The bytes of a fed array, which must be of the input's type and size. */
function checked({ name, type, shape, bytes }, array) {
  const [dtype, , Kind] = TYPES[type];
  if (array === undefined) throw new RangeError(`input ${name} is missing`);
  if (!(array instanceof Kind)) throw new TypeError(`input ${name} is ${dtype}: a ${Kind.name} is needed`);
  if (array.byteLength !== bytes) {
    const wanted = bytes / Kind.BYTES_PER_ELEMENT;
    throw new RangeError(`input ${name} of shape [${shape.join(', ')}] has ${wanted} numbers, not ${array.length}`);
  }
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

// Modules of one function that uses an instruction of the feature: v128.const; i32x4.relaxed_laneselect.
const PROBE_HEAD = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10];
const V128 = [0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

function supports(feature) {
  const body = feature === 'simd128' ? [0, ...V128, 0x1a, 0x0b] : [0, ...V128, ...V128, ...V128, 0xfd, 0x8b, 0x02, 0x1a, 0x0b];
  return WebAssembly.validate(Uint8Array.from([...PROBE_HEAD, body.length + 2, 1, body.length, ...body]));
}

/** The first target, in order of file, that this engine runs, or the named one. */
function chooseTarget(sections, wanted) {
  const why = [];
  for (const plan of sections.filter((s) => s.kind === 'PLAN')) {
    const code = sections.find((s) => s.kind === 'CODE' && s.group === plan.group);
    need(code && plan.bytes.length >= PLAN_HEADER, damaged + `target ${plan.name}`);
    const missing = FEATURES.filter((f, i) => plan.view.getBigUint64(8, true) & (1n << BigInt(i)) && !supports(f));
    let reason;
    if (wanted !== undefined && plan.name !== wanted) reason = `is not ${wanted}`;
    else if (plan.view.getUint32(0, true) !== WASM32) reason = 'is for another architecture';
    else if (plan.view.getBigUint64(8, true) >> BigInt(FEATURES.length)) reason = 'needs features that this loader does not know';
    else if (missing.length) reason = `needs ${missing.join(' and ')}`;
    else return { name: plan.name, plan, code };
    why.push(`${plan.name} ${reason}`);
  }
  throw new BundleError(`no target of the bundle runs on this WebAssembly engine (wasm32): ${why.join('; ') || 'it has none'}`);
}
