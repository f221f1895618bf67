// What the page shows with: its elements, and the parts of a card.
import { inMilliseconds } from "./vendor/speed.js";

export const $ = (id) => document.getElementById(id);

export function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

export function percent(score) {
  return `${(score * 100).toFixed(1)} %`;
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}

export function newCard(path) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector("h3").textContent = path;
  return card;
}

/** The card with what the network saw, the classes of an answer and its times. */
export function showAnswer(card, { path, labels, scores, milliseconds, pixels, ...found }) {
  const { height, width, size: [seenHeight, seenWidth] } = found;
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
  const steps = Object.entries(milliseconds).map(([step, time]) => `${step} ${inMilliseconds(time)}`);
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
