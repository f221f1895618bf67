// Keeps the page on the device and answers for its server: all files of one version, or none.
// It is registered when a user chooses so (offline.js); bundles are kept by the page (kept.js).
//
// A version is what `vendor/files.js` lists. It is installed only if every file has the listed
// hash, and answers once the version before has gone, so that old and new files never meet.
importScripts("vendor/files.js");

const { version, files } = self.densepathPage;
const SCOPE = self.registration.scope;
const PAGES = `densepath ${new URL(SCOPE).pathname} page `; // A path has no spaces.
const CACHE = PAGES + version;
const TYPES = {
  css: "text/css",
  html: "text/html; charset=utf-8",
  js: "text/javascript",
  json: "application/json",
  mjs: "text/javascript",
  png: "image/png",
  svg: "image/svg+xml",
  txt: "text/plain; charset=utf-8",
  wasm: "application/wasm",
  webmanifest: "application/manifest+json",
};
// With these a browser gives the page several threads, which its server may not ask for.
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "X-Content-Type-Options": "nosniff",
};

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(removeOthers()));
addEventListener("message", (event) => {
  if (event.data === "answer from now on") self.skipWaiting();
  // A browser may bring back one that was removed, instead of installing it.
  if (event.data === "keep again") {
    event.waitUntil(install().then(() => event.source.postMessage({ kept: version }), () => {}));
  }
});
addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (path) event.respondWith(answer(event.request, path));
});

/** The file of the page that is asked for; undefined for all else, which the server answers. */
function pathOf({ url, method }) {
  const [address] = url.split(/[?#]/);
  if (method !== "GET" || !address.startsWith(SCOPE)) return undefined;
  const path = address.slice(SCOPE.length) || "index.html";
  return Object.hasOwn(files, path) ? path : undefined;
}

async function answer(request, path) {
  const found = await caches.match(SCOPE + path, { cacheName: CACHE });
  if (request.mode !== "navigate") return found ?? fetch(request, { cache: "no-cache" });
  const kept = await caches.open(CACHE).then((cache) => cache.keys());
  if (found && kept.length === Object.keys(files).length) return found;
  // The browser has thrown files away: then all of them come from the server.
  await caches.delete(CACHE);
  return fetch(request, { cache: "no-cache" });
}

async function install() {
  try {
    const cache = await caches.open(CACHE);
    for (const [path, file] of Object.entries(files)) await cache.put(SCOPE + path, await get(path, file));
  } catch (error) {
    await caches.delete(CACHE);
    await tell(error.message);
    throw error;
  }
}

/** The listed file: of the version before, where it is the same, or else the server's. */
async function get(path, { sha256 }) {
  const kept = await caches.match(SCOPE + path);
  const before = kept && await kept.arrayBuffer();
  if (before && await hashOf(before) === sha256) return asFile(path, before);
  const response = await fetch(SCOPE + path, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${path}: the server answers ${response.status}`);
  const bytes = await response.arrayBuffer();
  if (await hashOf(bytes) !== sha256) {
    throw new Error(`${path} is not the file of version ${version}: the server's files are not `
      + "of one build. Run `npm run build`, and copy all of them");
  }
  return asFile(path, bytes);
}

async function hashOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function asFile(path, bytes) {
  const type = TYPES[path.split(".").at(-1)];
  return new Response(bytes, { headers: { ...HEADERS, "Content-Type": type } });
}

async function removeOthers() {
  const names = (await caches.keys()).filter((name) => name.startsWith(PAGES) && name !== CACHE);
  await Promise.all(names.map((name) => caches.delete(name)));
}

async function tell(failed) {
  const pages = await clients.matchAll({ includeUncontrolled: true, type: "window" });
  for (const page of pages) if (page.url.startsWith(SCOPE)) page.postMessage({ failed });
}
