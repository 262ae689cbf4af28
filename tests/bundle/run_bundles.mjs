// node run_bundles.mjs LOADER CASES: opens each bundle of the JSON list CASES, {bundle, inputs: [file], outputs: [file]},
// runs it twice on the inputs (raw bytes in files, in the model's order), and writes the second run's outputs.
import { readFile, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const [loader, list] = process.argv.slice(2);
const { open } = await import(pathToFileURL(loader));
const arrays = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, bool: Uint8Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
};
for (const { bundle, inputs, outputs } of JSON.parse(await readFile(list, 'utf8'))) {
  try {
    const model = await open(pathToFileURL(bundle));
    const feeds = {};
    for (const [i, { name, dtype }] of model.inputs.entries()) {
      feeds[name] = new arrays[dtype](new Uint8Array(await readFile(inputs[i])).buffer);
    }
    model.run(feeds);
    const results = model.run(feeds);
    for (const [i, { name }] of model.outputs.entries()) await writeFile(outputs[i], results[name]);
  } catch (error) {
    throw new Error(`${bundle}: ${error.message}`, { cause: error });
  }
}
