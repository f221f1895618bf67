// Opening a bundle over HTTP: nothing is used whose hash is not the manifest's.
import { BundleError } from "./errors.js";
import { complaint } from "./schema.js";

const MANIFEST = "manifest.json";
const HASH = `${MANIFEST}.sha256`;
const MOST_BYTES = 64 << 20; // of a manifest
const SCHEMA = new URL("./vendor/manifest-1.json", import.meta.url);
const FORMAT = "onnx";

/**
 * The address of a bundle's folder, with a slash at its end, from what stands in `?bundle=`. A
 * folder has neither query nor fragment: `#`, `?` and a lone `%` are letters of its name.
 */
export function folderOf(text, base) {
  const letters = text.replace(/[#?]|%(?![0-9a-f]{2})/gi, encodeURIComponent);
  return new URL(letters, base).href.replace(/\/*$/, "/");
}

/**
 * The bundle in a folder, by its address: { manifest, model, preprocess, files, sha256 }, where
 * `model` and `preprocess` are the bytes of these graphs, `files` all that was read by name, and
 * `sha256` the manifest's. `get(address)` is a Response, or null where there is none.
 *
 * `onProgress(loaded, total)` is told the bytes of the graphs as they come.
 * Throws a BundleError that says what is wrong and how to mend it.
 */
export async function openBundle(folder, { get = fromServer, onProgress = () => {} } = {}) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError("A bundle's hashes can be verified only on a page that comes from "
      + "localhost or over https; open it there.");
  }
  const { bytes, sha256, beside } = await verifiedManifest(folder, get);
  const manifest = readManifest(bytes, folder, await schema());
  const parts = manifest.formats[FORMAT];
  const names = [parts.model, parts.preprocess];
  const total = names.reduce((sum, name) => sum + manifest.files[name].size_bytes, 0);
  let loaded = 0;
  const count = (bytes) => onProgress((loaded += bytes), total);
  const [model, preprocess] = await Promise.all(
    names.map((name) => verifiedFile(folder, name, { file: manifest.files[name], get, count })),
  );
  const files = {
    [MANIFEST]: bytes, [HASH]: beside, [parts.model]: model, [parts.preprocess]: preprocess,
  };
  return { manifest, model, preprocess, files, sha256 };
}

/** The hash of the server's manifest; null if it cannot be had. */
export async function serversHash(folder) {
  const answer = await fromServer(folder + HASH).catch(() => null);
  return answer && firstWord(await answer.text());
}

/** The manifest's bytes and their hash, which is the one beside it. */
async function verifiedManifest(folder, get) {
  const [manifest, beside] = await Promise.all([MANIFEST, HASH].map((name) => get(folder + name)));
  if (!manifest && !beside) {
    throw new BundleError(`${folder} is not a bundle: it has no ${MANIFEST}. `
      + "`densepath export` makes bundles.");
  }
  for (const [name, answer] of [[MANIFEST, manifest], [HASH, beside]]) {
    if (!answer) throw new BundleError(`${folder}: ${name} is missing; copy the whole bundle again.`);
  }
  const bytes = await bytesOf(manifest, MOST_BYTES, `${folder}: ${MANIFEST}`);
  const line = await beside.text();
  const said = firstWord(line);
  const found = await hashOf(bytes);
  if (said !== found) {
    throw new BundleError(`${folder}: ${MANIFEST} was changed: its sha256 is ${found}, and `
      + `${HASH} says ${said.slice(0, 64) || "nothing"}. Copy the bundle again, or `
      + "export it anew.");
  }
  return { bytes, sha256: found, beside: line };
}

/** The manifest of these bytes, checked as in `densepath.bundle.manifest`. */
function readManifest(bytes, folder, rules) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new BundleError(`${folder}: ${MANIFEST} is not JSON: ${error.message}.`);
  }
  if (manifest?.format !== "densepath-bundle") {
    throw new BundleError(`${folder}: ${MANIFEST} does not say that it describes a densepath-bundle.`);
  }
  if (manifest.schema_version !== 1) {
    throw new BundleError(`${folder}: its schema version is ${JSON.stringify(manifest.schema_version)}; `
      + "this page reads version 1. Export the bundle again, or take the page of the densepath "
      + "that wrote it.");
  }
  const wrong = complaint(manifest, rules) ?? disagreement(manifest);
  if (wrong) throw new BundleError(`${folder}: ${MANIFEST}: ${wrong}.`);
  const { intensity, mean } = manifest.preprocess;
  if (intensity || ![1, 3].includes(mean.length)) {
    const why = intensity
      ? `has an intensity setting (${[intensity.kind, ...intensity.values].join(" ")}), for files of `
        + "more than 8 bits"
      : `takes ${mean.length} channels`;
    throw new BundleError(`${folder} ${why}, and a browser decodes photos of 8 bits only. `
      + "`densepath serve` and `densepath predict` answer for its files.");
  }
  if (!manifest.formats[FORMAT]) {
    const there = Object.keys(manifest.formats).sort().join(", ");
    const verb = manifest.precision === "int8" ? "quantize SUBJECT --data DATA" : "export SUBJECT";
    throw new BundleError(`${folder} has no ${FORMAT} format; it has ${there}. Add it: densepath `
      + `${verb} --to ${there.replaceAll(", ", ",")},${FORMAT} -o DIR`);
  }
  return manifest;
}

/** What two fields of a manifest say differently; null if nothing. */
function disagreement({ labels, output, input, preprocess, formats, files }) {
  const classes = output.shape[1];
  if (classes !== labels.length) return `${labels.length} labels for ${classes} logits`;
  const { size, mean, std } = preprocess;
  if (mean.length !== std.length) return `${mean.length} means and ${std.length} deviations`;
  const made = [mean.length, ...size];
  if (input.shape.slice(1).some((n, i) => n !== made[i] && (n !== null || i === 0))) {
    return `preprocess makes images [${made}], input.shape is ${JSON.stringify(input.shape)}`;
  }
  for (const part of ["model", "preprocess"]) {
    const name = formats[FORMAT]?.[part];
    if (name && !files[name]?.formats.includes(FORMAT)) {
      return `the ${FORMAT} ${part} ${name} is not listed in files`;
    }
  }
  return null;
}

/** A file's bytes, which are what the manifest says. */
async function verifiedFile(folder, name, { file, get, count }) {
  const answer = await get(folder + name);
  if (!answer) throw new BundleError(`${folder}: ${name} is missing; copy the whole bundle again.`);
  const bytes = await bytesOf(answer, file.size_bytes, `${folder}: ${name}`, count);
  if (bytes.length !== file.size_bytes) {
    throw new BundleError(`${folder}: ${name} has ${bytes.length.toLocaleString("en")} bytes, not the `
      + `${file.size_bytes.toLocaleString("en")} of the manifest; copy the bundle again.`);
  }
  const found = await hashOf(bytes);
  if (found !== file.sha256) {
    throw new BundleError(`${folder}: ${name} was changed: its sha256 is ${found}, not the `
      + `manifest's ${file.sha256}. Copy the bundle again.`);
  }
  return bytes;
}

async function schema() {
  const answer = await fromServer(SCHEMA.href);
  if (!answer) throw new BundleError("The page is not complete: run `npm ci` and `npm run build`.");
  return answer.json();
}

/** The answer of the server; null if it has no such file. */
async function fromServer(address) {
  let answer;
  try {
    // Asks whether the file is still the same, instead of taking an old one out of the cache.
    answer = await fetch(address, { cache: "no-cache" });
  } catch {
    throw new BundleError(`${address} cannot be reached. Does the server run? The page loads `
      + "bundles from its own server only.");
  }
  if (answer.status === 404) return null;
  if (!answer.ok) throw new BundleError(`${address}: the server answers ${answer.status}.`);
  return answer;
}

/** The body's bytes; one that is longer than `most` is cut off there, one byte too long. */
async function bytesOf(answer, most, name, count = () => {}) {
  const bytes = new Uint8Array(most + 1);
  let length = 0;
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return bytes.subarray(0, length);
      const part = value.subarray(0, bytes.length - length);
      bytes.set(part, length);
      length += part.length;
      count(part.length);
      if (length > most) {
        await reader.cancel();
        throw new BundleError(`${name} has more than ${most.toLocaleString("en")} bytes; copy the `
          + "bundle again.");
      }
    }
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new BundleError(`${name} broke off after ${length.toLocaleString("en")} bytes; try again.`);
  }
}

function firstWord(text) {
  return text.trim().split(/\s+/)[0];
}

async function hashOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
