// What the page asks of its server: the key, refusals, and images that are sent to `classify`.
// Addresses are relative: the server may stand below a path of another.

export const MOST_RETRIES = 3; // of an image that a busy server has refused
const AT_ONCE = 4; // images that are sent at the same time
const [SHOWN, FEW] = [5, 8]; // classes of an answer; of a network with at most FEW, all
const KEPT_KEY = "densepath-key";

export let key = kept();

/** What the server, or the browser in its place, says instead of an answer. */
export class Refusal extends Error {
  constructor(message, status, response = null, body = null) {
    super(message);
    Object.assign(this, { status, body });
    const seconds = Number(response?.headers.get("Retry-After") ?? 1);
    this.retryAfterS = seconds >= 0 ? seconds : 1; // It may also be a date.
  }
}

/** The message as a sentence: errors begin small and may have no full stop. */
export function sentence(text) {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

/** The JSON of an answer; throws a Refusal. */
export async function ask(address, options = {}) {
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

/** Why the server takes nothing; empty if it does. */
export async function obstacle() {
  try {
    await ask("v2/health/ready");
    return "";
  } catch (error) {
    return error.message;
  }
}

/** The answer for an image: as `classify` gives it, and the milliseconds until it was here. */
export async function classify(file, { model, explain, signal, onBusy }) {
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

// ---- when ----

let numRunning = 0;
const waiting = [];

/** What the work comes to, which starts when fewer than AT_ONCE others run. */
export async function inTurn(work) {
  if (numRunning < AT_ONCE) numRunning += 1;
  else await new Promise((resolve) => { waiting.push(resolve); });
  try {
    return await work();
  } finally {
    if (waiting.length) waiting.shift()();
    else numRunning -= 1;
  }
}

export function pause(milliseconds, signal = null) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

// ---- the key ----

/** From now on this key is sent; none if it is empty. */
export function useKey(text) {
  key = text;
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT_KEY) ?? "";
  } catch {
    return ""; // The browser may forbid to keep anything.
  }
}

/** The tab keeps the key that is used, or none. */
export function keepKey() {
  try {
    if (key) sessionStorage.setItem(KEPT_KEY, key);
    else sessionStorage.removeItem(KEPT_KEY);
  } catch {
    // Then it is asked for again after a reload.
  }
}
