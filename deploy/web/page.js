// The page: what the user gives goes to the worker, what comes back becomes a card.
// `?bundle=ADDRESS` names another folder than `bundle/`, on the same server.

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const address = new URL(new URLSearchParams(location.search).get("bundle") ?? "bundle/", location.href);
const waiting = new Map(); // id → { resolve, reject } of a prediction
let lastId = 0;
let entries = []; // { card, answer } of the images that were not cleared, in their order

/** Resolves to the manifest when the bundle is verified and loaded. */
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
  if (/^https?:$/.test(address.protocol)) worker.postMessage({ open: address.href });
  else reject(new Error(`${address.href} is not an http address of a bundle.`));
});

function settle({ id, answer, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
}

/** The answer for a File: { path, class_ids, labels, scores, milliseconds, pixels }. */
async function predict(file) {
  await ready;
  const id = (lastId += 1);
  const found = await new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ predict: file, id });
  });
  return { path: file.name, ...found };
}

// For scripts and tests.
window.densepath = {
  ready: ready.then(({ manifest }) => manifest),
  predict,
  /** What `densepath predict --json` says of the images on the page; null of those to come. */
  answers: () => entries.map(({ answer }) => answer),
};
window.densepath.ready.catch(() => {}); // The page says it below.

ready.then(showBundle, showFailure);

function showProgress({ loaded, total }) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  $("loading-bar").max = total;
  $("loading-bar").value = loaded;
  // A screen reader is told once, not at every packet.
  const text = `Loading the bundle: ${megabytes(total)} MB`;
  if ($("loading-text").textContent !== text) $("loading-text").textContent = text;
}

function showFailure(error) {
  $("loading").hidden = true;
  $("failure-text").textContent = error.message;
  $("failure").hidden = false;
}

function showBundle({ manifest, threads }) {
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
    "Runs on": `ONNX Runtime WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`,
  };
  for (const [name, text] of Object.entries(facts)) {
    $("facts").append(element("dt", name), element("dd", text));
  }
  listen();
}

function listen() {
  $("files").addEventListener("change", () => {
    answerAll([...$("files").files]);
    $("files").value = "";
  });
  $("save").addEventListener("click", saveAnswers);
  $("clear").addEventListener("click", () => {
    entries = [];
    $("cards").replaceChildren();
    $("results").hidden = true;
    $("files").focus();
  });
  document.addEventListener("paste", (event) => answerAll([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, () => document.body.classList.remove("dragging"));
  }
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    answerAll([...event.dataTransfer.files]);
  });
}

/** One card an image, in their order; images that come later stand above. */
function answerAll(files) {
  if (!files.length) return;
  const added = files.map((file) => ({ card: newCard(file), answer: null }));
  entries.push(...added);
  $("cards").prepend(...added.map(({ card }) => card));
  $("results").hidden = false;
  showCount();
  files.forEach((file, i) => answerOne(file, added[i]));
}

async function answerOne(file, entry) {
  const path = file.name;
  try {
    const found = await predict(file);
    const { class_ids, labels, scores } = found;
    showAnswer(entry.card, found);
    entry.answer = { path, class_ids, labels, scores };
  } catch (error) {
    entry.card.classList.add("wrong");
    entry.card.querySelector(".state").textContent = error.message;
    entry.answer = { path, error: error.message };
  }
  entry.card.removeAttribute("aria-busy");
  showCount();
}

/** How many are answered; a screen reader is told once all are. */
function showCount() {
  const number = entries.length;
  const done = entries.filter(({ answer }) => answer);
  const images = `${number} image${number === 1 ? "" : "s"}`;
  const isDone = done.length === number;
  $("count").textContent = isDone ? images : `${done.length} of ${images} answered`;
  $("save").disabled = !isDone;
  if (!isDone) return;
  const { path, error, labels, scores } = done.at(-1).answer;
  const only = error ?? `${labels?.[0]}, ${percent(scores?.[0])}`;
  $("live").textContent = number === 1 ? `${path}: ${only}` : `${images} answered`;
}

/** A download of the answers: one JSON object a line, as `densepath predict --json` writes. */
function saveAnswers() {
  const lines = window.densepath.answers().map((answer) => `${JSON.stringify(answer)}\n`);
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "answers.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function newCard(file) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector("h3").textContent = file.name;
  return card;
}

function showAnswer(card, { path, labels, scores, milliseconds, pixels, height, width, size }) {
  const [seenHeight, seenWidth] = size;
  const canvas = card.querySelector("canvas");
  canvas.hidden = false;
  canvas.height = seenHeight;
  canvas.width = seenWidth;
  canvas.classList.toggle("coarse", seenWidth < canvas.clientWidth);
  canvas.getContext("2d").putImageData(toImageData(pixels, seenHeight, seenWidth), 0, 0);
  canvas.setAttribute("aria-label", `What the network saw of ${path}`);
  const list = card.querySelector("ol");
  list.append(...labels.map((label, i) => classLine(label, scores[i])));
  list.hidden = false;
  card.querySelector(".state").hidden = true;
  const times = card.querySelector(".times");
  const steps = Object.entries(milliseconds).map(([step, time]) => (
    `${step} ${time.toFixed(time < 10 ? 1 : 0)} ms`
  ));
  // Lines break between the steps only.
  const parts = [`${width} × ${height}`, ...steps];
  times.textContent = parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
  times.hidden = false;
}

function classLine(label, score) {
  const line = element("li");
  const track = element("div");
  const fill = element("div");
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  fill.className = "fill";
  fill.style.width = `${score * 100}%`;
  track.append(fill);
  const [name, share] = [element("span", label), element("span", percent(score))];
  [name.className, share.className] = ["name", "score"];
  line.append(name, share, track);
  return line;
}

/** uint8 height × width × channels as what a canvas takes. */
function toImageData(pixels, height, width) {
  const image = new ImageData(width, height);
  const channels = pixels.length / (height * width);
  for (let i = 0; i < height * width; i += 1) {
    for (let c = 0; c < 3; c += 1) {
      image.data[4 * i + c] = pixels[channels * i + (channels === 1 ? 0 : c)];
    }
    image.data[4 * i + 3] = 255;
  }
  return image;
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}
