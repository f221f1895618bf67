// How fast images are answered: what the medians are taken of, and the words for them. Both pages
// take this file, that of `densepath serve` and that of deploy/web, whose build copies it.

const MOST = 100; // images that the medians are of: the last ones

export class Speed {
  #last = []; // of the last images, their milliseconds by step
  #numWaiting = 0;
  #numAnswered = 0; // since images were given to a page that had none to answer
  #started = 0;
  #seconds = 0; // from then to the last answer

  /** So many images wait for their answers from now on. */
  begin(number) {
    if (this.#numWaiting === 0) [this.#started, this.#numAnswered] = [performance.now(), 0];
    this.#numWaiting += number;
  }

  /** One of them is answered, in these milliseconds by step; null if it has no answer. */
  end(milliseconds) {
    this.#numWaiting -= 1;
    if (!milliseconds) return;
    this.#last = [...this.#last, milliseconds].slice(-MOST);
    this.#numAnswered += 1;
    this.#seconds = (performance.now() - this.#started) / 1000;
  }

  /** `medians` by step over `num` images; null before the first answer. */
  get figures() {
    if (!this.#last.length) return null;
    const steps = Object.keys(this.#last[0]);
    const medians = steps.map((step) => [step, median(this.#last.map((times) => times[step]))]);
    return { medians: Object.fromEntries(medians), num: this.#last.length };
  }

  /** "40 images in 2.1 s: 19 images/s"; empty of a single image, whose milliseconds say it. */
  get rate() {
    const number = this.#numAnswered;
    if (number < 2) return "";
    const [seconds, rate] = [this.#seconds, number / this.#seconds].map(inDigits);
    return `${number.toLocaleString("en")}\u00a0images in ${seconds}\u00a0s: ${rate}\u00a0images/s`;
  }
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}

/** Two digits at least: 0.042, 3.1, 250. */
function inDigits(number) {
  return number >= 10 ? number.toFixed(0) : Number(number.toPrecision(2)).toString();
}

export function inMilliseconds(number) {
  return `${number.toFixed(number < 10 ? 1 : 0)}\u00a0ms`; // No line breaks there.
}

/** "decode 2.0 ms, network 31 ms". */
export function inSteps(steps) {
  return Object.entries(steps).map(([step, time]) => `${step}\u00a0${inMilliseconds(time)}`).join(", ");
}

/** "median of the last 40 images"; of one image it is its time. */
export function ofImages(number) {
  return number === 1 ? "measured on one image" : `median of the last ${number} images`;
}

/** The element's text goes to the clipboard, or is selected where a page has none (over http). */
export async function copyText(element, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(element.textContent.replaceAll("\u00a0", " "));
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = "Selected: copy it";
  }
  setTimeout(() => { button.textContent = before; }, 2000);
}
