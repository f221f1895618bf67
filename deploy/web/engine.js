// A bundle's two graphs on ONNX Runtime's WebAssembly: image → pixels and logits.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { BundleError } from "./errors.js";

const MOST_THREADS = 8;

/** Opens the sessions of a verified bundle; threads are used where the page is isolated. */
export async function startEngine(bundle) {
  ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(cores(), MOST_THREADS) : 1;
  ort.env.logLevel = "error";
  const [preprocess, model] = [await session(bundle, "preprocess"), await session(bundle, "model")];
  const { input, output } = bundle.manifest;

  /** { data, height, width } → { logits, pixels, preprocess_ms, network_ms }. */
  async function run({ data, height, width }) {
    const start = performance.now();
    const channels = data.length / (height * width);
    const image = new ort.Tensor("uint8", data, [height, width, channels]);
    const { images, pixels } = await preprocess.run({ image });
    const middle = performance.now();
    const { [output.name]: logits } = await model.run({ [input.name]: images });
    return {
      logits: logits.data,
      pixels: pixels.data,
      preprocess_ms: middle - start,
      network_ms: performance.now() - middle,
    };
  }
  return { run, ...threading(), version: ort.env.versions.web };
}

/** The threads of the engine, and what decided on them. */
function threading() {
  const { numThreads: threads } = ort.env.wasm;
  return { threads, cores: cores(), isolated: self.crossOriginIsolated };
}

function cores() {
  return navigator.hardwareConcurrency || 1;
}

async function session(bundle, part) {
  try {
    return await ort.InferenceSession.create(bundle[part], { executionProviders: ["wasm"] });
  } catch (error) {
    throw new BundleError(`ONNX Runtime cannot load the bundle's ${part} graph: ${error.message}`);
  }
}
