// The thread that does the work, so that the page stays responsive:
// { open: address } → { progress } …, { opened } or { failed };
// { predict: file, id } → { id, answer } or { id, error }.
import { openBundle } from "./bundle.js";
import { decode } from "./decode.js";
import { startEngine } from "./engine.js";
import { answer } from "./predictions.js";

let manifest, engine;

async function open(address) {
  const bundle = await openBundle(new URL(address), (loaded, total) => {
    postMessage({ progress: { loaded, total } });
  });
  engine = await startEngine(bundle);
  manifest = bundle.manifest;
  return { manifest, threads: engine.threads };
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
  turn = turn.then(async () => {
    if (data.open) {
      await open(data.open).then(
        (opened) => { postMessage({ opened }); return warmUp(); },
        (error) => postMessage({ failed: error.message }),
      );
      return;
    }
    await predict(data.predict).then(
      (found) => postMessage({ id: data.id, answer: found }),
      (error) => postMessage({ id: data.id, error: error.message }),
    );
  });
};
