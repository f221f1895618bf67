// The page of `densepath serve`: what is served and whether the server takes anything, its key,
// the models, and what the user does. `cards.js` has the images, `server.js` sends them.

import * as cards from "./cards.js";
import { $, onTransfer, saveAnswers, say, showFacts } from "./elements.js";
import { Refusal, ask, keepKey, key, obstacle, pause, sentence, useKey } from "./server.js";
import { copyText } from "./speed.js";

const PATIENCE_MS = 2000; // between two looks at a server that takes nothing

let rows = []; // of `models`: one for each model and version
let isWatching = false;

// For scripts and tests.
window.densepath = { answers: cards.answers };

listen();
start();

// ---- the server ----

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
  keepKey();
  $("access").hidden = $("failure").hidden = true;
  $("drop").hidden = $("about").hidden = false;
  showPickers();
  cards.retry();
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

/** What an image was refused for may hold for all: the key is wrong, or the server is away. */
function hearRefusal({ status, message }) {
  if (status === 401) showAccess();
  if ([0, 503].includes(status)) watch(message);
}

/** The field for the key; says so if one was refused. */
function showAccess(refused = key !== "") {
  if (!refused && !$("access").hidden) return; // Of many images each hears of it.
  if (refused) $("key-hint").textContent = "The server does not take this key.";
  $("key-hint").classList.toggle("wrong", refused);
  useKey("");
  keepKey();
  $("access").hidden = false;
  $("key").value = "";
  $("key").focus();
}

// ---- the models ----

/** The pickers, where there is a choice; what was chosen stays chosen. */
function showPickers() {
  const names = [...new Set(rows.map(({ name }) => name))];
  const name = names.includes(cards.model?.name) ? cards.model.name : names[0];
  fill($("model"), names, name);
  $("model-label").hidden = names.length === 1;
  showVersions(cards.model?.version);
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

/** The chosen row: what the page says of it, and that it answers. */
function showModel() {
  const [name, version] = [$("model").value, $("version").value];
  const row = rows.find((each) => each.name === name && each.version === version);
  document.title = `${name} · densepath`;
  const number = row.num_classes.toLocaleString("en");
  $("summary").textContent = `${name}: ${row.network}, ${number} classes. `
    + "Images are sent to this server, and not kept.";
  const [height, width] = row.input_size;
  const facts = {
    Model: `${name}, version ${version}`,
    Network: row.network,
    Classes: `${number}${row.multi_label ? ", several at once" : ""}`,
    Input: `${width} × ${height}`,
    Precision: row.precision,
    "Runs on": row.reason ? `${row.engine}: ${row.reason}` : row.engine,
    "From a program": command(name),
  };
  showFacts(facts);
  $("facts").lastChild.className = "code";
  cards.answerWith(row);
}

/** What asks the same in a shell. */
function command(name) {
  const address = new URL("classify", location.href);
  if (rows.length > 1) address.searchParams.set("model", name);
  const access = key ? '-H "Authorization: Bearer $KEY" ' : "";
  return `curl ${access}-F files=@photo.jpg '${address}'`;
}

// ---- what the user does ----

function listen() {
  cards.onRefusal(hearRefusal);
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey($("key").value.trim());
    // Nothing else can stand in a header.
    if (/^[\x21-\x7e]+$/.test(key)) start();
    else showAccess(true);
  });
  $("model").addEventListener("change", () => showVersions());
  $("version").addEventListener("change", showModel);
  $("files").addEventListener("change", () => {
    cards.answerAll([...$("files").files]);
    $("files").value = "";
  });
  $("heat").addEventListener("click", cards.toggleHeat);
  $("save").addEventListener("click", () => saveAnswers(cards.answers()));
  $("clear").addEventListener("click", cards.clear);
  $("copy").addEventListener("click", () => copyText($("speed-text"), $("copy")));
  onTransfer(({ files }) => cards.answerAll([...files]));
  document.addEventListener("visibilitychange", () => {
    if (cards.model && !document.hidden) watch();
  });
}
