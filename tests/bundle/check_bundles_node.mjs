// node check_bundles_node.mjs LOADER CASES: `checkBundles` on the JSON file CASES; prints the results as JSON.
import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { checkBundles } from './check_bundles.mjs';

const [loader, list] = process.argv.slice(2);
const read = async (file) => new Uint8Array(await readFile(file));
const results = await checkBundles(await import(pathToFileURL(loader)), JSON.parse(await readFile(list, 'utf8')), read);
process.stdout.write(JSON.stringify(results));
