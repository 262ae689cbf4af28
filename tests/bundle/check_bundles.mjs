// What node and a page run: opens bundles as `cases` say, each
//   {bundle: file, options, feeds: {name: file of raw bytes}, verify, changes: [['flip' or 'cut', byte]]},
// and returns for each what came out: {target, inputs, outputs: {name: base64}, verified} or {error, message}; of
// changes, made one at a time, those that were no BundleError, as {unnoticed}. `read` gives the bytes of a file.
const arrays = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, bool: Uint8Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
};

export async function checkBundles({ open, BundleError }, cases, read) {
  const results = [];
  for (const { bundle, options = {}, feeds, verify, changes } of cases) {
    try {
      const bytes = await read(bundle);
      if (changes) {
        const unnoticed = [];
        for (const [kind, at] of changes) {
          const changed = kind === 'cut' ? bytes.slice(0, at) : bytes.slice();
          if (kind === 'flip') changed[at] ^= 1 << at % 8;
          const noticed = await open(changed).then(() => false, (error) => error instanceof BundleError);
          if (!noticed) unnoticed.push([kind, at]);
        }
        results.push({ unnoticed });
        continue;
      }
      const model = await open(bytes, options);
      const result = { target: model.target, inputs: model.inputs };
      if (feeds) {
        const given = {};
        for (const [name, url] of Object.entries(feeds)) {
          const { dtype } = model.inputs.find((x) => x.name === name);
          given[name] = new arrays[dtype]((await read(url)).slice().buffer);
        }
        model.run(given);
        const outputs = Object.entries(model.run(given));
        result.outputs = Object.fromEntries(outputs.map(([name, array]) => [name, base64(array)]));
      }
      if (verify) result.verified = await model.verify();
      results.push(result);
    } catch (error) {
      results.push({ error: error.name, message: error.message });
    }
  }
  return results;
}

function base64(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = '';
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
}
