// The images on the page: each is a card, which shows its answer and its heat map.

import { $, newCard, say, showAnswer, showCount } from "./elements.js";
import { MOST_RETRIES, Refusal, classify, inTurn, sentence } from "./server.js";
import { Speed, inMilliseconds, inSteps, ofImages } from "./speed.js";

const COLOURS = "Where the network looked for its first answer:";
const NO_COLOURS = "This model has no heat maps: these take a bundle with the format torch, in "
  + "float32, and PyTorch beside the server.";
const RETRIED = [0, 401, 404, 429, 500, 502, 503, 504]; // may pass; 0 is no answer at all

export let model = null; // the row of `models` that answers
let entries = []; // of each image what `newEntry` makes, in their order
let heated = false; // heat maps are wanted
let speed = new Speed(); // of the model, since the page was empty
let stopping = new AbortController(); // ends what was asked of another model, or was cleared
let tellRefusal = () => {};

/** `tell` is called with each Refusal that an image met. */
export function onRefusal(tell) {
  tellRefusal = tell;
}

/** What `densepath predict --json` says of the images on the page; null of those to come. */
export function answers() {
  return entries.map(({ answer }) => answer);
}

/** The model of this row answers from now on; images that another has answered are asked again. */
export function answerWith(row) {
  const before = model;
  model = row;
  $("heat").disabled = !model.explains;
  showHeat(heated && model.explains);
  if (before && (before.name !== row.name || before.version !== row.version)) answerAgain();
}

/** One card an image, in their order; images that come later stand above. */
export function answerAll(files) {
  if (!files.length || !model) return;
  const added = files.map(newEntry);
  entries.push(...added);
  $("cards").prepend(...added.map(({ card }) => card));
  $("results").hidden = false;
  $("live").textContent = "";
  added.forEach(answerOne);
  tellCount();
}

function answerAgain() {
  stop();
  for (const entry of entries) {
    Object.assign(entry, { overlay: "", seen: "" });
    showPicture(entry);
  }
  $("live").textContent = "";
  entries.forEach(answerOne);
  tellCount();
}

/** Images whose refusal may have passed are asked again, so many times at most. */
export function retry() {
  const again = entries.filter((entry) => entry.mayRetry && entry.numRetries < MOST_RETRIES);
  for (const entry of again) {
    entry.numRetries += 1;
    answerOne(entry);
  }
  if (again.length) tellCount();
}

function stop() {
  stopping.abort();
  stopping = new AbortController();
  speed = new Speed();
  showSpeed();
}

/** No image is left. */
export function clear() {
  stop();
  entries.forEach(({ address }) => URL.revokeObjectURL(address));
  entries = [];
  $("cards").replaceChildren();
  $("results").hidden = true;
  $("live").textContent = "";
  $("files").focus();
}

// ---- an answer ----

function newEntry(file) {
  const card = newCard(file.name);
  const entry = {
    file,
    card,
    address: URL.createObjectURL(file),
    answer: null,
    overlay: "",
    seen: "",
    numRetries: 0,
  };
  card.querySelector(".again").addEventListener("click", () => {
    entry.numRetries = 0;
    card.focus(); // The button goes.
    answerOne(entry);
    tellCount();
  });
  card.querySelector("img").addEventListener("error", ({ target }) => {
    // What this browser cannot show, such as TIFF, the server may have read.
    if (entry.seen && target.src !== entry.seen) target.src = entry.seen;
    else card.classList.add("unshown");
  });
  showPicture(entry);
  return entry;
}

/** The card as it was before its answer. */
function renew(card) {
  card.setAttribute("aria-busy", "true");
  card.classList.remove("wrong");
  card.querySelector(".state").textContent = "waiting …";
  card.querySelector(".state").hidden = false;
  for (const part of [".again", ".classes", ".note", ".times"]) {
    card.querySelector(part).hidden = true;
  }
}

async function answerOne(entry) {
  const { signal } = stopping;
  const { file, card } = entry;
  const state = card.querySelector(".state");
  entry.answer = null;
  entry.mayRetry = false;
  speed.begin(1);
  renew(card);
  const onBusy = (text) => {
    state.textContent = text;
    say($("live"), text);
  };
  try {
    const found = await inTurn(() => classify(file, { model, explain: false, signal, onBusy }));
    signal.throwIfAborted();
    if (found.error !== undefined) throw new Refusal(found.error, 422);
    showAnswer(card, found, timesOf(found));
    const { class_ids, labels, scores, positive_ids, positive_labels } = found;
    entry.answer = { path: file.name, class_ids, labels, scores, positive_ids, positive_labels };
    speed.end({ ...found.times, milliseconds: found.milliseconds });
  } catch (error) {
    if (signal.aborted) return;
    speed.end(null);
    fail(entry, error);
  }
  card.removeAttribute("aria-busy");
  tellCount();
  showSpeed();
  if (heated) explainOne(entry);
}

/** The times of an answer, at the server and with the connection. */
function timesOf({ times: { read, queue, network, total }, milliseconds }) {
  const steps = Object.entries({ read, queue, network });
  return [
    ...steps.map(([step, time]) => `${step}\u00a0${inMilliseconds(time)}`),
    `${inMilliseconds(total)}\u00a0in\u00a0all`,
    `${inMilliseconds(milliseconds)} with the connection`,
  ].join("\u00a0· ");
}

function fail(entry, error) {
  const said = error.body?.predictions?.[0]?.error ?? error.message;
  if (!(error instanceof Refusal)) console.error(error); // A mistake of this page.
  entry.answer = { path: entry.file.name, error: said };
  entry.mayRetry = RETRIED.includes(error.status);
  entry.card.classList.add("wrong");
  entry.card.querySelector(".state").textContent = sentence(said);
  entry.card.querySelector(".again").hidden = !entry.mayRetry;
  tellRefusal(error);
}

/** How many are answered, and how many of them were refused. */
function tellCount() {
  const numFailed = answers().filter((answer) => answer?.error !== undefined).length;
  showCount(answers(), numFailed ? `, ${numFailed} without an answer` : "");
}

/** How fast the answers come, as one can read it and copy it. */
function showSpeed() {
  const { figures, rate } = speed;
  $("speed").hidden = !figures;
  if (!figures) return;
  const { read, queue, network, total, milliseconds } = figures.medians;
  const { name, network: kind, precision, engine } = model;
  const parts = [
    `${name} (${kind}, ${precision}) by ${engine}: ${inMilliseconds(total)} an image at the server `
      + `(${inSteps({ read, queue, network })}), ${inMilliseconds(milliseconds)} with the `
      + `connection; ${ofImages(figures.num)}`,
    rate,
  ];
  $("speed-text").textContent = parts.filter(Boolean).map((part) => `${part}.`).join(" ");
}

// ---- heat maps ----

/** Heat maps go over the pictures, or away from them. */
export function toggleHeat() {
  showHeat(!heated);
}

function showHeat(wanted) {
  heated = wanted;
  $("heat").setAttribute("aria-pressed", String(heated));
  $("cards").classList.toggle("heated", heated);
  $("heat-text").textContent = model.explains ? COLOURS : NO_COLOURS;
  $("heat-hint").hidden = model.explains && !heated;
  $("scale").hidden = !heated;
  entries.forEach(showPicture);
  if (heated) entries.forEach(explainOne);
}

async function explainOne(entry) {
  const { answer, card, file } = entry;
  const { signal } = stopping;
  if (!answer?.labels || entry.overlay || entry.isExplaining === signal) return;
  const note = card.querySelector(".note");
  const tell = (text) => {
    note.textContent = text;
    note.hidden = !text;
  };
  entry.isExplaining = signal;
  tell("The heat map is being made …");
  try {
    const options = { model, explain: true, signal, onBusy: tell };
    const { explanation, error } = await inTurn(() => classify(file, options));
    signal.throwIfAborted();
    if (!explanation) throw new Refusal(error ?? "the server sent none", 422);
    [entry.overlay, entry.seen] = [explanation.overlay, explanation.seen];
    tell("");
    showPicture(entry);
  } catch (error) {
    if (!signal.aborted) tell(`No heat map: ${sentence(error.message)}`);
    tellRefusal(error);
  }
  if (entry.isExplaining === signal) entry.isExplaining = null;
  const isDone = heated && entries.every(({ isExplaining }) => !isExplaining);
  if (!signal.aborted && isDone) say($("live"), "Heat maps are shown");
}

/** The image, or the heat map over what the network saw of it. */
function showPicture({ card, file, address, answer, overlay }) {
  const image = card.querySelector("img");
  const isMap = heated && overlay !== "";
  card.classList.remove("unshown");
  card.classList.toggle("map", isMap);
  image.src = isMap ? overlay : address;
  image.alt = isMap ? `Heat map of ${file.name}: where the network looked for ${answer.labels[0]}`
    : `The image ${file.name}`;
}
