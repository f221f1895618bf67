// Bundles on the device: what is stored by the page, where, and how much it is.
// The names of caches hold for a whole origin, on which several pages may stand: each begins with
// the path of its page. A bundle's has its address and its manifest's hash.

const HERE = `densepath ${new URL("./", import.meta.url).pathname} `; // As in service-worker.js.
const BUNDLES = `${HERE}bundle `;
const MANIFEST = "manifest.json";

/** The rows { name, address, sha256 } of the bundles that are kept whole; the newest is last. */
async function rows() {
  const found = (await caches.keys()).filter((name) => name.startsWith(BUNDLES));
  const made = found.map(async (name) => {
    const [address, sha256] = name.slice(BUNDLES.length).split(" ");
    // The manifest is written last.
    return await caches.match(address + MANIFEST, { cacheName: name }) && { name, address, sha256 };
  });
  return (await Promise.all(made)).filter(Boolean);
}

/**
 * A kept bundle: { get, sha256 }, whose `get(address)` is as in bundle.js; null if none is kept,
 * or the browser keeps nothing.
 */
export async function findKept(folder) {
  try {
    const row = (await rows()).findLast(({ address }) => address === folder);
    if (!row) return null;
    const get = async (address) => await caches.match(address, { cacheName: row.name }) ?? null;
    return { get, sha256: row.sha256 };
  } catch {
    return null;
  }
}

/** Keeps a verified bundle's files, in place of what was kept of its address. */
export async function keep(folder, { files, sha256 }) {
  const name = `${BUNDLES}${folder} ${sha256}`;
  try {
    await caches.delete(name);
    const cache = await caches.open(name);
    const last = Object.keys(files).sort((a, b) => (a === MANIFEST) - (b === MANIFEST));
    for (const file of last) await cache.put(folder + file, new Response(files[file]));
  } catch (error) {
    await caches.delete(name);
    throw error;
  }
  await forget(folder, name);
}

/** Removes what is kept of a bundle's address, but for the cache of one name. */
async function forget(folder, except) {
  const names = (await caches.keys()).filter((name) => name.startsWith(`${BUNDLES}${folder} `));
  await Promise.all(names.filter((name) => name !== except).map((name) => caches.delete(name)));
}

/** { page, bundles: [{ name, address, bytes }] }: what is stored, in bytes. */
export async function stored() {
  const bundles = (await rows()).map(async ({ name, address }) => {
    const manifest = await caches.match(address + MANIFEST, { cacheName: name });
    return { address, name: (await manifest.json()).model.name, bytes: await sizeOf(name) };
  });
  const pages = (await caches.keys()).filter((name) => name.startsWith(`${HERE}page `));
  const sizes = await Promise.all(pages.map(sizeOf));
  return { page: sizes.reduce((a, b) => a + b, 0), bundles: await Promise.all(bundles) };
}

/** Removes the page's files and all bundles. */
export async function removeAll() {
  const names = (await caches.keys()).filter((name) => name.startsWith(HERE));
  await Promise.all(names.map((name) => caches.delete(name)));
}

async function sizeOf(name) {
  if (!await caches.has(name)) return 0; // Removed meanwhile; to open it would make it anew.
  const cache = await caches.open(name);
  const answers = await Promise.all((await cache.keys()).map((request) => cache.match(request)));
  const sizes = await Promise.all(answers.map(async (answer) => (await answer.blob()).size));
  return sizes.reduce((a, b) => a + b, 0);
}
