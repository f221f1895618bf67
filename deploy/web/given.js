// What a user gives: files one by one, or folders with all that is in them.

const NO_PATH = ""; // of a file that was chosen by itself
const IMAGE = /^image\//;

/** [{ file, path }] of a file field; a folder's without what is no image: { images, numLeftOut }. */
export function ofField({ files }) {
  const given = [...files].map((file) => ({ file, path: file.webkitRelativePath || NO_PATH }));
  return chosen(given);
}

/** The same of what was dropped or pasted. */
export async function ofTransfer({ items, files }) {
  // The entries must be taken before the first wait.
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) {
    return chosen([...files].map((file) => ({ file, path: NO_PATH })));
  }
  const given = await Promise.all(entries.map((entry) => filesOf(entry, "")));
  return chosen(given.flat());
}

async function filesOf(entry, folder) {
  const path = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [{ file, path: folder ? path : NO_PATH }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // It gives a hundred at a time.
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map((each) => filesOf(each, `${path}/`)))).flat();
}

/** Files given by themselves stay: an answer says what is wrong with them. */
function chosen(given) {
  const isWanted = ({ file, path }) => path === NO_PATH || isImage(file);
  const images = given.filter(isWanted).map(({ file, path }) => ({ file, path: path || file.name }));
  if (given.some(({ path }) => path !== NO_PATH)) images.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { images, numLeftOut: given.length - images.length };
}

function isImage({ name, type }) {
  return IMAGE.test(type) && !name.startsWith(".");
}
