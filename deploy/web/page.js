// The page: what the user gives goes to the worker, what comes back becomes a card.
// `?bundle=ADDRESS` names another folder than `bundle/`, on the same server.
import { showFound } from "./answer.js";
import { folderOf } from "./bundle.js";
import { ofField, ofTransfer } from "./given.js";
import { showOffline, startOffline } from "./offline.js";
import {
  $, newCard, onTransfer, saveAnswers, say, showCount, showFacts,
} from "./vendor/elements.js";
import { Speed, copyText, inMilliseconds, inSteps, ofImages } from "./vendor/speed.js";

const worker = new Worker("worker.js", { type: "module" });
const address = folderOf(new URLSearchParams(location.search).get("bundle") ?? "bundle/", location.href);
const waiting = new Map(); // id → { resolve, reject } of a prediction
let lastId = 0;
let entries = []; // { card, path, answer } of the images that were not cleared, in their order
let speed = new Speed(); // of these
let bundle = null; // what the worker says of it

/** Resolves to what the worker says of the bundle when it is verified and loaded. */
const ready = new Promise((resolve, reject) => {
  worker.onmessage = ({ data }) => {
    if (data.progress) showProgress(data.progress);
    else if (data.opened) resolve(data.opened);
    else if (data.failed) reject(new Error(data.failed));
    else settle(data);
  };
  worker.onerror = (event) => {
    reject(new Error("The page is not complete, or the browser is too old: "
      + `${event.message ?? "a module cannot be loaded"}. Run \`npm ci\` and \`npm run build\`.`));
  };
  // A data URL and the like has no folder.
  if (/^https?:/.test(address)) worker.postMessage({ open: address });
  else reject(new Error(`${address} is not an http address of a bundle.`));
});

function settle({ id, answer, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
}

/** The answer for a File: { path, class_ids, labels, scores, milliseconds, pixels }. */
async function predict(file, path = file.name) {
  await ready;
  const id = (lastId += 1);
  const found = await new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ predict: file, id });
  });
  return { path, ...found };
}

/** What `densepath predict --json` says of the images on the page; null of those to come. */
function answers() {
  return entries.map(({ answer }) => answer);
}

// For scripts and tests.
window.densepath = {
  ready: ready.then(({ manifest }) => manifest),
  predict: (file) => predict(file),
  answers,
};
window.densepath.ready.catch(() => {}); // The page says it below.

startOffline(address);
ready.then(showBundle, showFailure);

function showProgress({ loaded, total }) {
  $("loading-bar").max = total;
  $("loading-bar").value = loaded;
  // A screen reader is told once, not at every packet.
  say($("loading-text"), `Loading the bundle: ${(total / 1e6).toFixed(1)} MB`);
}

function showFailure(error) {
  $("loading").hidden = true;
  $("failure-text").textContent = error.message;
  $("failure").hidden = false;
  showOffline(null);
}

function showBundle(opened) {
  bundle = opened;
  const { manifest } = opened;
  const { model, labels, preprocess, input } = manifest;
  $("loading").hidden = true;
  $("drop").hidden = false;
  $("about").hidden = false;
  $("model").textContent = model.name;
  document.title = `${model.name} · densepath`;
  $("summary").textContent = `${labels.length.toLocaleString("en")} classes. Images stay on this `
    + "device: they are read and answered in the page itself.";
  const [height, width] = preprocess.size;
  const facts = {
    Network: `${model.name}, ${model.num_parameters.toLocaleString("en")} parameters`,
    Classes: `${labels.length.toLocaleString("en")}${manifest.multi_label ? ", several at once" : ""}`,
    Input: `${width} × ${height}${preprocess.resize_short ? ` of ${preprocess.resize_short}` : ""}, `
      + `${preprocess.interpolation}, ${input.shape[1] === 1 ? "gray" : "RGB"}`,
    Precision: manifest.precision,
    From: `${manifest.source.subject ?? "unknown"}${manifest.source.sha256 ? `, sha256 ${manifest.source.sha256}` : ""}`,
    Made: `${manifest.created}, ${Object.entries(manifest.tools).map((tool) => tool.join(" ")).join(", ")}`,
    "Loaded from": opened.isKept ? "this device" : "the server",
    "Runs on": runtime(opened.backend),
  };
  showFacts(facts);
  listen();
  showOffline(opened);
}

function listen() {
  for (const id of ["files", "folder"]) {
    $(id).addEventListener("change", () => {
      answerAll(ofField($(id)));
      $(id).value = "";
    });
  }
  $("choose-folder").hidden = !("webkitdirectory" in $("folder"));
  $("choose-folder").addEventListener("click", () => $("folder").click());
  $("save").addEventListener("click", () => saveAnswers(answers()));
  $("clear").addEventListener("click", clear);
  $("copy").addEventListener("click", () => copyText($("speed-text"), $("copy")));
  onTransfer(async (given) => answerAll(await ofTransfer(given)));
}

function clear() {
  worker.postMessage({ forget: lastId });
  entries = [];
  speed = new Speed();
  $("cards").replaceChildren();
  $("results").hidden = true;
  $("files").focus();
}

/** One card an image, in their order; images that come later stand above. */
function answerAll({ images, numLeftOut }) {
  if (!images.length && !numLeftOut) return;
  const added = images.map(({ path }) => ({ card: newCard(path), path, answer: null }));
  entries.push(...added);
  speed.begin(added.length);
  $("cards").prepend(...added.map(({ card }) => card));
  $("results").hidden = false;
  $("live").textContent = "";
  $("left-out").hidden = numLeftOut === 0;
  $("left-out").textContent = `Left out, as no image: ${numLeftOut} other `
    + `file${numLeftOut === 1 ? "" : "s"} of the folder.`;
  showSpeed();
  showCount(answers());
  images.forEach(({ file }, i) => answerOne(file, added[i], speed));
}

async function answerOne(file, entry, timed) {
  const { path, card } = entry;
  try {
    const found = await predict(file, path);
    const { class_ids, labels, scores, positive_ids, positive_labels, milliseconds } = found;
    const { decode, preprocess, network } = milliseconds;
    timed.end({ ...milliseconds, total: decode + preprocess + network });
    if (timed !== speed) return; // It was cleared.
    showFound(card, found);
    entry.answer = { path, class_ids, labels, scores, positive_ids, positive_labels };
  } catch (error) {
    timed.end(null);
    card.classList.add("wrong");
    card.querySelector(".state").textContent = error.message;
    entry.answer = { path, error: error.message };
  }
  card.removeAttribute("aria-busy");
  if (timed !== speed) return;
  showCount(answers());
  showSpeed();
}

/** How fast the answers come and what on, as one can read it and copy it. */
function showSpeed() {
  const { figures, rate } = speed;
  $("speed").hidden = !figures;
  if (!figures) return;
  const { total, ...steps } = figures.medians;
  const { model, precision } = bundle.manifest;
  const parts = [
    `${model.name} (${precision}): ${inMilliseconds(total)} an image (${inSteps(steps)}); `
      + ofImages(figures.num),
    rate,
    runtime(bundle.backend),
  ];
  $("speed-text").textContent = parts.filter(Boolean).map((part) => `${part}.`).join(" ");
}

/** What the network runs on, and why on one thread alone where there could be more. */
function runtime({ version, threads, cores, isolated }) {
  const number = (count, word) => `${count}\u00a0${word}${count === 1 ? "" : "s"}`;
  const backend = `ONNX Runtime ${version} in WebAssembly, ${number(threads, "thread")} on `
    + number(cores, "core");
  if (isolated) return backend;
  return `${backend}: browsers allow more on an isolated page only, and this one came without the `
    + "headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy; kept for use without a "
    + "network, it has them from the next start on";
}
