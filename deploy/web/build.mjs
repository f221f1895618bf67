// Copies what the page needs into its own folder: ONNX Runtime's WebAssembly, and the schema of a
// bundle's manifest.
import { copyFile, mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const RUNTIME = "./node_modules/onnxruntime-web/dist/";
const FILES = {
  "ort.wasm.min.mjs": RUNTIME,
  "ort-wasm-simd-threaded.mjs": RUNTIME,
  "ort-wasm-simd-threaded.wasm": RUNTIME,
  "manifest-1.json": "../../src/densepath/bundle/schema/",
};

await rm(here("./vendor"), { recursive: true, force: true });
await mkdir(here("./vendor"));
for (const [name, folder] of Object.entries(FILES)) {
  await copyFile(here(folder + name), here("./vendor/" + name));
}
console.log(`vendor/: ${Object.keys(FILES).join(", ")}`);
