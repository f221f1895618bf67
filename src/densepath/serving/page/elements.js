// What both pages show with, that of `densepath serve` and that of deploy/web, whose build copies this
// file: elements, a card's answer, what is said of all cards, and images that are dropped or pasted.

export const $ = (id) => document.getElementById(id);

export function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** The text of a live region; one that stands there already is not told again. */
export function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}

/** The list of what a user may want to know, by its names. */
export function showFacts(facts) {
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([term, text]) => (
    [element("dt", term), element("dd", text)]
  )));
}

// ---- a card ----

export function newCard(path) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector("h3").textContent = path;
  return card;
}

/** The card with the classes of an answer, the likeliest first, and its times in words. */
export function showAnswer(card, { class_ids, labels, scores, positive_ids }, times) {
  const list = card.querySelector(".classes");
  list.replaceChildren(...labels.map((label, i) => {
    const line = classLine(label, scores[i]);
    if (positive_ids?.includes(class_ids[i])) markPositive(line);
    return line;
  }));
  list.hidden = false;
  card.querySelector(".state").hidden = true;
  card.querySelector(".times").textContent = times;
  card.querySelector(".times").hidden = false;
}

/** The line of a class whose score is above its threshold. */
function markPositive(line) {
  const name = line.querySelector(".name");
  name.textContent += " \u2713";
  name.title = "above its threshold";
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

function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}

// ---- all cards ----

/**
 * How many of the answers, null of those to come, are there; a screen reader is told once all are.
 * `note` is said behind their number.
 */
export function showCount(answers, note = "") {
  const number = answers.length;
  const done = answers.filter(Boolean);
  const images = `${number} image${number === 1 ? "" : "s"}`;
  const isDone = done.length === number;
  $("count").textContent = isDone ? images + note : `${done.length} of ${images} answered`;
  $("save").disabled = !isDone || !number;
  if (!isDone || !number) return;
  const { path, error, labels, scores } = done.at(-1);
  const only = error ?? `${labels[0]}, ${percent(scores[0])}`;
  say($("live"), number === 1 ? `${path}: ${only}` : `${images} answered${note}`);
}

/** A download of the answers: one JSON object a line, as `densepath predict --json` writes. */
export function saveAnswers(answers) {
  const lines = answers.map((answer) => `${JSON.stringify(answer)}\n`);
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "answers.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

// ---- what a user gives ----

/** Calls `take` with each DataTransfer that is pasted, or dropped anywhere on the page. */
export function onTransfer(take) {
  document.addEventListener("paste", (event) => take(event.clipboardData));
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
    take(event.dataTransfer);
  });
}
