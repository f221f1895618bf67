// A card's answer: the classes and times, which `elements.js` shows, and what the network saw.
import { showAnswer } from "./vendor/elements.js";
import { inMilliseconds } from "./vendor/speed.js";

/** The card with what the network saw, the classes of an answer and its times. */
export function showFound(card, found) {
  const { path, height, width, milliseconds, pixels, size: [seenHeight, seenWidth] } = found;
  const canvas = card.querySelector("canvas");
  canvas.hidden = false;
  canvas.height = seenHeight;
  canvas.width = seenWidth;
  canvas.classList.toggle("coarse", seenWidth < canvas.clientWidth);
  canvas.getContext("2d").putImageData(toImageData(pixels, seenHeight, seenWidth), 0, 0);
  canvas.setAttribute("aria-label", `What the network saw of ${path}`);
  const steps = Object.entries(milliseconds);
  const times = steps.map(([step, time]) => `${step} ${inMilliseconds(time)}`);
  // Lines break between the steps only.
  const parts = [`${width} × ${height}`, ...times];
  showAnswer(card, found, parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · "));
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
