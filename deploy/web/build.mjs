// Makes the page whole, in its own folder: `vendor/` gets ONNX Runtime's WebAssembly, the schema of
// a bundle's manifest, and what this page shares with the server's; `vendor/files.js` lists every
// file of the page with its hash, which is what `service-worker.js` keeps on a device.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const RUNTIME = "./node_modules/onnxruntime-web/dist/";
const SERVERS_PAGE = "../../src/densepath/serving/page/";
const VENDOR = {
  "ort.wasm.min.mjs": RUNTIME,
  "ort-wasm-simd-threaded.mjs": RUNTIME,
  "ort-wasm-simd-threaded.wasm": RUNTIME,
  "manifest-1.json": "../../src/densepath/bundle/schema/",
  "elements.js": SERVERS_PAGE,
  "speed.js": SERVERS_PAGE,
  "style.css": SERVERS_PAGE,
};
const OF_THE_PAGE = /\.(html|css|js|png|svg|webmanifest|txt)$/;
const SERVICE_WORKER = "service-worker.js"; // The browser keeps it itself, with `vendor/files.js`.

const hashOf = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** { path: { sha256, size_bytes } } of the page's files, sorted by path. */
async function listed() {
  const own = (await readdir(here("."))).filter((name) => OF_THE_PAGE.test(name));
  const paths = [...own.filter((name) => name !== SERVICE_WORKER),
    ...Object.keys(VENDOR).map((name) => `vendor/${name}`)];
  const rows = paths.sort().map(async (path) => {
    const bytes = await readFile(here(path));
    return [path, { sha256: hashOf(bytes), size_bytes: bytes.length }];
  });
  return Object.fromEntries(await Promise.all(rows));
}

await rm(here("./vendor"), { recursive: true, force: true });
await mkdir(here("./vendor"));
for (const [name, folder] of Object.entries(VENDOR)) {
  await copyFile(here(folder + name), here(`./vendor/${name}`));
}
const files = await listed();
const version = hashOf(JSON.stringify(files)).slice(0, 12);
const text = JSON.stringify({ version, files }, null, 1);
await writeFile(here("./vendor/files.js"), `// Written by build.mjs.\nself.densepathPage = ${text};\n`);
console.log(`vendor/: ${Object.keys(VENDOR).join(", ")}; ${Object.keys(files).length} files, `
  + `version ${version}`);
