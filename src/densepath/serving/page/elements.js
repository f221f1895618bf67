// What the page shows with: its elements, the parts of a card, and numbers as words.

import { inMilliseconds } from "./speed.js";

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

// ---- a card ----

/** The card as it was before its answer. */
export function renew(card) {
  card.setAttribute("aria-busy", "true");
  card.classList.remove("wrong");
  card.querySelector(".state").textContent = "waiting …";
  card.querySelector(".state").hidden = false;
  for (const part of [".again", ".classes", ".note", ".times"]) {
    card.querySelector(part).hidden = true;
  }
}

/** The card with the classes of an answer, the likeliest first, and its times. */
export function showAnswer(card, { labels, scores, times, milliseconds }) {
  const list = card.querySelector(".classes");
  list.replaceChildren(...labels.map((label, i) => classLine(label, scores[i])));
  list.hidden = false;
  card.querySelector(".state").hidden = true;
  const { read, queue, network, total } = times;
  const steps = Object.entries({ read, queue, network });
  const parts = steps.map(([step, time]) => `${step}\u00a0${inMilliseconds(time)}`);
  parts.push(
    `${inMilliseconds(total)}\u00a0in\u00a0all`,
    `${inMilliseconds(milliseconds)} with the connection`,
  );
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

// ---- words ----

export function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}

/** The message as a sentence: errors begin small and may have no full stop. */
export function sentence(text) {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}
