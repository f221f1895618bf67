// The thread that does the work, so that the page stays responsive:
// { open: folder } → { progress } …, { opened } or { failed };
// { predict: file, id } → { id, answer } or { id, error };
// { forget: id }: nothing up to that one is wanted any more.
import { openBundle } from "./bundle.js";
import { decode } from "./decode.js";
import { startEngine } from "./engine.js";
import { BundleError } from "./errors.js";
import { findKept, keep } from "./kept.js";
import { answer } from "./predictions.js";

let manifest, engine;
let forgotten = 0;

/** { manifest, sha256, bytes, isKept, backend } of the bundle that is loaded. */
async function open(folder) {
  const onProgress = (loaded, total) => postMessage({ progress: { loaded, total } });
  const { isKept, ...bundle } = await keptOrServers(folder, onProgress);
  const { run, ...backend } = await startEngine(bundle);
  manifest = bundle.manifest;
  engine = { run };
  const bytes = Object.values(bundle.files).reduce((sum, part) => sum + part.length, 0);
  return { manifest, sha256: bundle.sha256, bytes, isKept, backend };
}

/** The bundle that is kept on the device, or the server's, which then replaces a damaged one. */
async function keptOrServers(folder, onProgress) {
  const kept = await findKept(folder);
  if (!kept) return { ...await openBundle(folder, { onProgress }), isKept: false };
  try {
    return { ...await openBundle(folder, { get: kept.get, onProgress }), isKept: true };
  } catch (damage) {
    const bundle = await openBundle(folder, { onProgress }).catch((error) => {
      throw new BundleError(`What is kept on this device cannot be used: ${damage.message} `
        + `Nor can the server's: ${error.message}`);
    });
    const isKept = await keep(folder, bundle).then(() => true, () => false);
    return { ...bundle, isKept };
  }
}

async function predict(file) {
  const start = performance.now();
  const image = await decode(file, manifest.preprocess.mean.length);
  const decode_ms = performance.now() - start;
  const { logits, pixels, preprocess_ms, network_ms } = await engine.run(image);
  const milliseconds = { decode: decode_ms, preprocess: preprocess_ms, network: network_ms };
  const { height, width } = image;
  const { size } = manifest.preprocess;
  return { ...answer(logits, manifest), milliseconds, pixels, size, height, width };
}

/** The first run is several times slower than the next; the user need not wait for it. */
async function warmUp() {
  const channels = manifest.preprocess.mean.length;
  await engine.run({ data: new Uint8Array(64 * channels), height: 8, width: 8 }).catch(() => {});
}

let turn = Promise.resolve();

onmessage = ({ data }) => {
  if (data.forget) {
    forgotten = data.forget;
    return;
  }
  turn = turn.then(async () => {
    if (data.open) {
      await open(data.open).then(
        (opened) => { postMessage({ opened }); return warmUp(); },
        (error) => postMessage({ failed: error.message }),
      );
      return;
    }
    if (data.id <= forgotten) {
      postMessage({ id: data.id, error: "no longer asked for" });
      return;
    }
    await predict(data.predict).then(
      (found) => postMessage({ id: data.id, answer: found }),
      (error) => postMessage({ id: data.id, error: error.message }),
    );
  });
};
