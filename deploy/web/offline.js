// The page without a network: whether it is kept on the device, how many MB that takes, and what is
// new on the server. Nothing is stored before the user says so, by the button or by installing.
import { openBundle, serversHash } from "./bundle.js";
import { findKept, keep, removeAll, stored } from "./kept.js";
import { $, element } from "./vendor/elements.js";

const SCRIPT = new URL("./service-worker.js", import.meta.url).href;
const SCOPE = new URL("./", import.meta.url).href;
const DECLINED = `densepath ${SCOPE} is not to be kept`;
const PATIENCE_MS = 1000; // for the service worker's own words on why it is not installed

let folder; // of the bundle on the page
let bundle = null; // what the worker says of it; null while it is loaded, or cannot be
let isLoaded = false;

/** Begins before the bundle is there: a version that takes over meanwhile is loaded as a whole. */
export function startOffline(address) {
  folder = address;
  const workers = serviceWorkers();
  if (!workers) return;
  workers.addEventListener("controllerchange", () => {
    if (!isLoaded) location.reload();
    else showUpdate("This page has a new version.", () => location.reload());
  });
  workers.addEventListener("message", ({ data }) => {
    if (data.failed) $("offline-note").textContent = `A version cannot be kept: ${data.failed}.`;
  });
}

/** Shows what is kept, once the bundle is there (what the worker says of it) or cannot be (null). */
export async function showOffline(opened) {
  bundle = opened;
  isLoaded = true;
  $("offline").hidden = false;
  const reason = await obstacle();
  if (reason) {
    $("offline-text").textContent = `Only with its server: ${reason}.`;
    return;
  }
  $("keep").addEventListener("click", keepAll);
  $("remove").addEventListener("click", remove);
  addEventListener("appinstalled", keepAll);
  const registration = await registered();
  if (registration) watch(registration);
  await showState();
  const isInstalled = matchMedia("(display-mode: standalone)").matches;
  if (isInstalled && !registration && !hasDeclined()) await keepAll();
  await look();
  for (const name of ["online", "visibilitychange"]) addEventListener(name, look);
}

// ---- what the browser allows ----

/** The browser's service workers; null where it has none. */
function serviceWorkers() {
  try {
    return navigator.serviceWorker ?? null;
  } catch {
    return null;
  }
}

/** Why nothing can be kept; empty if it can. */
async function obstacle() {
  if (!isSecureContext) return "browsers keep pages that come over https or from localhost only";
  const closed = "this browser keeps no pages here (a private window, or site data is blocked)";
  if (!serviceWorkers()) return closed;
  try {
    await Promise.all([caches.keys(), registered()]);
    return "";
  } catch (error) {
    return `${closed}: ${error.message}`;
  }
}

/** The page's own registration, not one of a folder above it. */
async function registered() {
  const found = await navigator.serviceWorker.getRegistration(SCOPE);
  return found?.scope === SCOPE && found.active ? found : null;
}

// ---- what is kept ----

async function showState() {
  const { page, bundles } = await stored();
  const isKept = Boolean(await registered()) && page > 0;
  const isWhole = isKept && bundles.some(({ address }) => address === folder);
  const all = bundles.reduce((sum, { bytes }) => sum + bytes, page);
  const missing = (isKept ? 0 : await pageBytes()) + (isWhole || !bundle ? 0 : bundle.bytes);
  const name = bundle?.manifest.model.name;
  $("offline-text").textContent = isWhole ? "This page works without a network."
    : isKept ? `The page is kept on this device, ${name ?? "this bundle"} is not: it needs the server.`
      : "Nothing is kept on this device: the page needs its server.";
  $("keep").hidden = isWhole || !bundle;
  const takes = missing > 0 ? ` (${megabytes(missing)})` : "";
  $("keep").textContent = `Keep for use without a network${takes}`;
  $("remove").hidden = all === 0;
  $("remove").textContent = `Remove from this device (${megabytes(all)})`;
  $("kept").replaceChildren(...page ? [element("li", `the page, ${megabytes(page)}`)] : [],
    ...bundles.map(keptLine));
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}

function keptLine({ name, address, bytes }) {
  const line = element("li");
  const link = element("a", name);
  link.href = `${SCOPE}?${new URLSearchParams({ bundle: address })}`;
  line.append(address === folder ? name : link, `, ${megabytes(bytes)}`);
  return line;
}

/** Of the page's files, as its build lists them; not a number where the list cannot be had. */
async function pageBytes() {
  try {
    await import("./vendor/files.js");
  } catch {
    return NaN;
  }
  const files = Object.values(self.densepathPage.files);
  return files.reduce((sum, file) => sum + file.size_bytes, 0);
}

// ---- keeping and removing ----

/** Keeps the page and its bundle, or leaves the device as it was. */
async function keepAll() {
  const before = await registered();
  $("keep").disabled = true;
  $("offline-note").textContent = "Keeping …";
  try {
    if (!before) await keepPage();
    if (bundle) await keepBundle();
    decline(false);
    $("offline-note").textContent = await isSafe() ? ""
      : "The browser may remove it when the device runs short of space.";
  } catch (error) {
    if (!before) await forgetAll();
    $("offline-note").textContent = `Not kept: ${error.message}.`;
  }
  $("keep").disabled = false;
  await showState();
}

async function keepPage() {
  const options = { scope: SCOPE, updateViaCache: "none" };
  const kept = new Promise((resolve, reject) => {
    navigator.serviceWorker.addEventListener("message", ({ data }) => {
      if (data.failed) reject(new Error(data.failed));
      if (data.kept) resolve();
    });
  });
  const registration = await navigator.serviceWorker.register(SCRIPT, options);
  await Promise.race([installed(registration), kept]);
  if ((await stored()).page === 0) {
    registration.active.postMessage("keep again");
    await kept;
  }
  watch(registration);
}

function installed({ installing, waiting, active }) {
  const worker = installing ?? waiting ?? active;
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === "activated") resolve();
      if (worker.state !== "redundant") return;
      setTimeout(() => reject(new Error("the browser has not installed the page")), PATIENCE_MS);
    };
    worker.addEventListener("statechange", look);
    look();
  });
}

/** What is kept is what the server has now. */
async function keepBundle() {
  const onProgress = (loaded, total) => {
    $("offline-note").textContent = `Keeping ${megabytes(loaded)} of ${megabytes(total)} …`;
  };
  const found = await openBundle(folder, { onProgress });
  await keep(folder, found);
  if (found.sha256 !== bundle.sha256) {
    showUpdate("The server has a newer model, which is kept now.", () => location.reload());
  }
}

/** Whether the browser has promised not to throw it away by itself. */
async function isSafe() {
  return await navigator.storage?.persist?.().catch(() => false) ?? false;
}

async function remove() {
  const { page, bundles } = await stored();
  await forgetAll();
  decline(true);
  const bytes = bundles.reduce((all, row) => all + row.bytes, page);
  $("update").hidden = true;
  await showState();
  $("offline-note").textContent = `Removed ${megabytes(bytes)}.`;
  $("keep").focus();
}

async function forgetAll() {
  const registration = await navigator.serviceWorker.getRegistration(SCOPE);
  if (registration?.scope === SCOPE) await registration.unregister();
  await removeAll();
}

/** An installed page keeps itself, unless its user has removed it. */
function decline(isDeclined) {
  try {
    if (isDeclined) localStorage.setItem(DECLINED, "true");
    else localStorage.removeItem(DECLINED);
  } catch {
    // Then it is kept again at the next start.
  }
}

function hasDeclined() {
  try {
    return localStorage.getItem(DECLINED) !== null;
  } catch {
    return false;
  }
}

// ---- what is new ----

/** Asks the server for another version of the page, and of a bundle that is kept. */
async function look() {
  if (document.hidden) return;
  const registration = await registered();
  if (!registration) return;
  await registration.update().catch(() => {}); // Without a network there is no news.
  const hash = bundle && await findKept(folder) && await serversHash(folder);
  if (!hash || hash === bundle.sha256 || !$("update").hidden) return;
  showUpdate("The server has a newer model.", async () => {
    try {
      await keep(folder, await openBundle(folder));
      location.reload();
    } catch (error) {
      $("update-text").textContent = `The newer model cannot be fetched: ${error.message}`;
    }
  });
}

function watch(registration) {
  const tell = () => {
    const { waiting, active } = registration;
    if (waiting && active) showUpdate("This page has a new version.", () => takeOver(waiting));
  };
  const follow = () => registration.installing?.addEventListener("statechange", tell);
  registration.addEventListener("updatefound", follow);
  follow(); // The browser looks for itself when the page is opened.
  tell();
}

/** The new version answers, this page first. */
function takeOver(waiting) {
  waiting.addEventListener("statechange", () => {
    if (waiting.state === "activated") location.reload();
  });
  waiting.postMessage("answer from now on");
}

function showUpdate(text, onReload) {
  $("update-text").textContent = text;
  $("reload").onclick = onReload;
  $("update").hidden = false;
}
