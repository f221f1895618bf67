// The page of `densepath serve`: an image that the user gives is sent to `classify`, what comes
// back becomes a card. Addresses are relative: the server may stand below a path of another.

const AT_ONCE = 4; // images that are sent at the same time
const MOST_RETRIES = 3; // of an image that a busy server has refused
const PATIENCE_MS = 2000; // between two looks at a server that takes nothing
const [SHOWN, FEW] = [5, 8]; // classes of an answer; of a network with at most FEW, all
const KEPT_KEY = "densepath-key";
const COLOURS = "Where the network looked for its first answer:";
const NO_COLOURS = "This model has no heat maps: these take a bundle with the format torch, in "
  + "float32, and PyTorch beside the server.";
const RETRIED = [0, 401, 404, 429, 500, 502, 503, 504]; // may pass; 0 is no answer at all

const $ = (id) => document.getElementById(id);
let key = kept();
let rows = []; // of `models`: one for each model and version
let model = null; // the row that answers
let entries = []; // of each image what `newEntry` makes, in their order
let heated = false; // heat maps are wanted
let stopping = new AbortController(); // ends what was asked of another model, or was cleared
let isWatching = false;

// For scripts and tests: what `densepath predict --json` says of the images on the page; null of
// those to come.
window.densepath = { answers: () => entries.map(({ answer }) => answer) };

/** What the server, or the browser in its place, says instead of an answer. */
class Refusal extends Error {
  constructor(message, status, response = null, body = null) {
    super(message);
    Object.assign(this, { status, body });
    const seconds = Number(response?.headers.get("Retry-After") ?? 1);
    this.retryAfterS = seconds >= 0 ? seconds : 1; // It may also be a date.
  }
}

listen();
start();

// ---- the server ----

/** The JSON of an answer; throws a Refusal. */
async function ask(address, options = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response, text;
  try {
    response = await fetch(address, { ...options, headers, cache: "no-store" });
    text = await response.text();
  } catch {
    options.signal?.throwIfAborted();
    throw new Refusal("the server cannot be reached", 0);
  }
  const body = fromJson(text);
  if (response.ok && body) return body;
  const said = response.ok ? "the answer is not densepath's: what stands before the server?"
    : body?.error ?? `the server answered with status ${response.status}`;
  throw new Refusal(said, response.status, response, body);
}

function fromJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // A proxy's page, for instance.
  }
}

/** Asks what is served, and shows it: first, after a new key, and when the server is back. */
async function start() {
  try {
    rows = (await ask("models")).models.filter(({ ready }) => ready);
    if (!rows.length) throw new Refusal("no model is loaded", 503);
  } catch (error) {
    if (error.status === 401) return showAccess();
    if ([0, 503].includes(error.status)) return watch(error.message);
    $("failure-text").textContent = sentence(error.message);
    $("failure").hidden = false;
    return null;
  }
  keep(key);
  $("access").hidden = $("failure").hidden = true;
  $("drop").hidden = $("about").hidden = false;
  showPickers();
  const again = entries.filter((entry) => entry.mayRetry && entry.numRetries < MOST_RETRIES);
  for (const entry of again) {
    entry.numRetries += 1;
    answerOne(entry);
  }
  if (again.length) showCount();
  return watch();
}

/** Says that the server takes nothing, while that is so, and starts again afterwards. */
async function watch(said = "") {
  if (isWatching) return;
  isWatching = true;
  said ||= await obstacle();
  const wasAway = said !== "";
  while (said) {
    say($("notice"), `${sentence(said)} This page goes on by itself once it is back.`);
    $("notice").hidden = false;
    await pause(PATIENCE_MS);
    said = await obstacle();
  }
  isWatching = false;
  $("notice").hidden = true;
  if (wasAway) start();
}

/** Why the server takes nothing; empty if it does. */
async function obstacle() {
  try {
    await ask("v2/health/ready");
    return "";
  } catch (error) {
    return error.message;
  }
}

/** The answer for an image: as `classify` gives it, and the milliseconds until it was here. */
async function classify(file, { explain, signal, onBusy }) {
  await check(file);
  const { name, version, num_classes: classes } = model;
  const topK = classes > FEW ? SHOWN : classes;
  const query = new URLSearchParams({ model: name, version, top_k: topK });
  if (explain) query.set("explain", "true");
  const body = new FormData();
  body.append("files", file);
  for (let retries = 1; ; retries += 1) {
    signal.throwIfAborted();
    const started = performance.now();
    try {
      const { predictions, timing_ms: times } = await ask(`classify?${query}`, {
        method: "POST", body, signal,
      });
      return { ...predictions[0], times, milliseconds: performance.now() - started };
    } catch (error) {
      if (error.status === 0) throw await reasonOf(error, file);
      if (error.status !== 429) throw error;
      if (retries > MOST_RETRIES) {
        throw new Refusal(`the server was busy ${retries} times`, 429);
      }
      onBusy(`The server is busy. Trying again in ${error.retryAfterS} s `
        + `(${retries} of ${MOST_RETRIES}) …`);
      await pause(1000 * error.retryAfterS, signal);
    }
  }
}

/** Throws if the browser itself cannot read the file: a folder, or changed since it was chosen. */
async function check(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Refusal("the browser cannot read it: is it a folder, or was it changed?", 400);
  }
}

/** Why there was no answer: a server that lives has ended the connection for another reason. */
async function reasonOf(error, file) {
  try {
    await ask("v2/health/live");
  } catch {
    return error;
  }
  const megabytes = (file.size / 1e6).toFixed(1);
  return new Refusal(`the connection ended before the answer: is the file, of ${megabytes} MB, `
    + "larger than the server takes?", 413);
}

let numRunning = 0;
const waiting = [];

/** What the work comes to, which starts when fewer than AT_ONCE others run. */
async function inTurn(work) {
  if (numRunning < AT_ONCE) numRunning += 1;
  else await new Promise((resolve) => { waiting.push(resolve); });
  try {
    return await work();
  } finally {
    if (waiting.length) waiting.shift()();
    else numRunning -= 1;
  }
}

function pause(milliseconds, signal = null) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

// ---- the key ----

function kept() {
  try {
    return sessionStorage.getItem(KEPT_KEY) ?? "";
  } catch {
    return ""; // The browser may forbid to keep anything.
  }
}

function keep(text) {
  try {
    if (text) sessionStorage.setItem(KEPT_KEY, text);
    else sessionStorage.removeItem(KEPT_KEY);
  } catch {
    // Then it is asked for again after a reload.
  }
}

/** The field for the key; says so if one was refused. */
function showAccess(refused = key !== "") {
  if (!refused && !$("access").hidden) return; // Of many images each hears of it.
  if (refused) $("key-hint").textContent = "The server does not take this key.";
  $("key-hint").classList.toggle("wrong", refused);
  key = "";
  keep("");
  $("access").hidden = false;
  $("key").value = "";
  $("key").focus();
}

// ---- the models ----

/** The pickers, where there is a choice; what was chosen stays chosen. */
function showPickers() {
  const names = [...new Set(rows.map(({ name }) => name))];
  const name = names.includes(model?.name) ? model.name : names[0];
  fill($("model"), names, name);
  $("model-label").hidden = names.length === 1;
  showVersions(model?.version);
}

function showVersions(chosen) {
  const ours = rows.filter(({ name }) => name === $("model").value);
  const version = (ours.find((row) => row.version === chosen) ?? ours.find((row) => row.default)
    ?? ours[0]).version;
  fill($("version"), ours.map((row) => row.version), version);
  $("version-label").hidden = ours.length === 1;
  $("pickers").hidden = $("model-label").hidden && ours.length === 1;
  showModel();
}

function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  select.value = chosen;
}

/** The chosen row: what the page says of it. Images that another has answered are asked again. */
function showModel() {
  const before = model;
  const [name, version] = [$("model").value, $("version").value];
  model = rows.find((row) => row.name === name && row.version === version);
  document.title = `${name} · densepath`;
  const number = model.num_classes.toLocaleString("en");
  $("summary").textContent = `${name}: ${model.network}, ${number} classes. `
    + "Images are sent to this server, and not kept.";
  const [height, width] = model.input_size;
  const facts = {
    Model: `${name}, version ${version}`,
    Network: model.network,
    Classes: `${number}${model.multi_label ? ", several at once" : ""}`,
    Input: `${width} × ${height}`,
    Precision: model.precision,
    "Runs on": model.reason ? `${model.engine}: ${model.reason}` : model.engine,
    "From a program": command(name),
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([term, text]) => (
    [element("dt", term), element("dd", text)]
  )));
  $("facts").lastChild.className = "code";
  $("heat").disabled = !model.explains;
  showHeat(heated && model.explains);
  if (before && (before.name !== name || before.version !== version)) answerAgain();
}

/** What asks the same in a shell. */
function command(name) {
  const address = new URL("classify", location.href);
  if (rows.length > 1) address.searchParams.set("model", name);
  const access = key ? '-H "Authorization: Bearer $KEY" ' : "";
  return `curl ${access}-F files=@photo.jpg '${address}'`;
}

function answerAgain() {
  stop();
  for (const entry of entries) {
    Object.assign(entry, { overlay: "", seen: "" });
    showPicture(entry);
  }
  $("live").textContent = "";
  entries.forEach(answerOne);
  showCount();
}

function stop() {
  stopping.abort();
  stopping = new AbortController();
}

// ---- what the user does ----

function listen() {
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    key = $("key").value.trim();
    // Nothing else can stand in a header.
    if (/^[\x21-\x7e]+$/.test(key)) start();
    else showAccess(true);
  });
  $("model").addEventListener("change", () => showVersions());
  $("version").addEventListener("change", showModel);
  $("files").addEventListener("change", () => {
    answerAll([...$("files").files]);
    $("files").value = "";
  });
  $("heat").addEventListener("click", () => showHeat(!heated));
  $("save").addEventListener("click", saveAnswers);
  $("clear").addEventListener("click", clear);
  document.addEventListener("paste", (event) => answerAll([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    answerAll([...event.dataTransfer.files]);
  });
  document.addEventListener("visibilitychange", () => {
    if (model && !document.hidden) watch();
  });
}

function clear() {
  stop();
  entries.forEach(({ address }) => URL.revokeObjectURL(address));
  entries = [];
  $("cards").replaceChildren();
  $("results").hidden = true;
  $("live").textContent = "";
  $("files").focus();
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

// ---- the answers ----

/** One card an image, in their order; images that come later stand above. */
function answerAll(files) {
  if (!files.length || !model) return;
  const added = files.map(newEntry);
  entries.push(...added);
  $("cards").prepend(...added.map(({ card }) => card));
  $("results").hidden = false;
  $("live").textContent = "";
  added.forEach(answerOne);
  showCount();
}

function newEntry(file) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const entry = {
    file,
    card,
    address: URL.createObjectURL(file),
    answer: null,
    overlay: "",
    seen: "",
    numRetries: 0,
  };
  card.querySelector("h3").textContent = file.name;
  card.querySelector(".again").addEventListener("click", () => {
    entry.numRetries = 0;
    card.focus(); // The button goes.
    answerOne(entry);
    showCount();
  });
  card.querySelector("img").addEventListener("error", ({ target }) => {
    // What this browser cannot show, such as TIFF, the server may have read.
    if (entry.seen && target.src !== entry.seen) target.src = entry.seen;
    else card.classList.add("unshown");
  });
  showPicture(entry);
  return entry;
}

async function answerOne(entry) {
  const { signal } = stopping;
  const { file, card } = entry;
  const state = card.querySelector(".state");
  entry.answer = null;
  entry.mayRetry = false;
  renew(entry);
  const onBusy = (text) => {
    state.textContent = text;
    say($("live"), text);
  };
  try {
    const found = await inTurn(() => classify(file, { explain: false, signal, onBusy }));
    signal.throwIfAborted();
    if (found.error !== undefined) throw new Refusal(found.error, 422);
    showAnswer(card, found);
    const { class_ids, labels, scores } = found;
    entry.answer = { path: file.name, class_ids, labels, scores };
  } catch (error) {
    if (signal.aborted) return;
    fail(entry, error);
  }
  card.removeAttribute("aria-busy");
  showCount();
  if (heated) explainOne(entry);
}

/** The card as it was before its answer. */
function renew({ card }) {
  card.setAttribute("aria-busy", "true");
  card.classList.remove("wrong");
  card.querySelector(".state").textContent = "waiting …";
  card.querySelector(".state").hidden = false;
  for (const part of [".again", ".classes", ".note", ".times"]) {
    card.querySelector(part).hidden = true;
  }
}

function fail(entry, error) {
  const said = error.body?.predictions?.[0]?.error ?? error.message;
  if (!(error instanceof Refusal)) console.error(error); // A mistake of this page.
  entry.answer = { path: entry.file.name, error: said };
  entry.mayRetry = RETRIED.includes(error.status);
  entry.card.classList.add("wrong");
  entry.card.querySelector(".state").textContent = sentence(said);
  entry.card.querySelector(".again").hidden = !entry.mayRetry;
  if (error.status === 401) showAccess();
  if ([0, 503].includes(error.status)) watch(said);
}

/** How many are answered; a screen reader is told once all are. */
function showCount() {
  const number = entries.length;
  const done = entries.filter(({ answer }) => answer);
  const numFailed = done.filter(({ answer }) => answer.error !== undefined).length;
  const images = `${number} image${number === 1 ? "" : "s"}`;
  const isDone = done.length === number;
  const failed = numFailed ? `, ${numFailed} without an answer` : "";
  $("count").textContent = isDone ? images + failed : `${done.length} of ${images} answered`;
  $("save").disabled = !isDone;
  if (!isDone || !number) return;
  const { path, error, labels, scores } = done.at(-1).answer;
  const only = error ?? `${labels[0]}, ${percent(scores[0])}`;
  say($("live"), number === 1 ? `${path}: ${only}` : `${images} answered${failed}`);
}

function showAnswer(card, { labels, scores, times, milliseconds }) {
  const list = card.querySelector(".classes");
  list.replaceChildren(...labels.map((label, i) => classLine(label, scores[i])));
  list.hidden = false;
  card.querySelector(".state").hidden = true;
  const { read, queue, network, total } = times;
  const steps = Object.entries({ read, queue, network });
  const parts = steps.map(([step, time]) => `${step}\u00a0${rounded(time)}`);
  parts.push(`${rounded(total)}\u00a0in\u00a0all`, `${rounded(milliseconds)} with the connection`);
  card.querySelector(".times").textContent = parts.join("\u00a0· ");
  card.querySelector(".times").hidden = false;
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

// ---- heat maps ----

/** Heat maps over the pictures, or the pictures alone. */
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
    const options = { explain: true, signal, onBusy: tell };
    const { explanation, error } = await inTurn(() => classify(file, options));
    signal.throwIfAborted();
    if (!explanation) throw new Refusal(error ?? "the server sent none", 422);
    [entry.overlay, entry.seen] = [explanation.overlay, explanation.seen];
    tell("");
    showPicture(entry);
  } catch (error) {
    if (!signal.aborted) tell(`No heat map: ${sentence(error.message)}`);
    if (error.status === 401) showAccess();
    if ([0, 503].includes(error.status)) watch(error.message);
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

// ---- words ----

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** The text of a live region; one that stands there already is not told again. */
function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}

function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}

function rounded(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)}\u00a0ms`; // No line breaks there.
}

/** The message as a sentence: errors begin small and may have no full stop. */
function sentence(text) {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}
