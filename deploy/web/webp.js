// EXIF orientation of WebP files, which Chromium leaves out and other browsers may not: it is taken
// out of the file before the browser decodes it, and applied here.
// Source: the WebP container specification (RIFF chunks); EXIF 2.3, section 4.6.

const HEADER_BYTES = 12;
const ORIENTATION = 0x0112;
const ascii = (view, at) => String.fromCharCode(...new Uint8Array(view.buffer, at, 4));

/** { orientation: 1 … 8, file } of a WebP File; the new file has no EXIF. */
export async function takeOrientation(file) {
  const buffer = await file.arrayBuffer();
  const view = new DataView(buffer);
  for (let at = HEADER_BYTES; at + 8 <= buffer.byteLength;) {
    const size = view.getUint32(at + 4, true);
    if (ascii(view, at) === "EXIF") {
      const orientation = readOrientation(buffer.slice(at + 8, at + 8 + size));
      // A chunk of another name is passed over by every reader.
      new Uint8Array(buffer, at, 4).set([0x4e, 0x4f, 0x4e, 0x45]);
      return { orientation, file: new Blob([buffer]) };
    }
    at += 8 + size + (size % 2);
  }
  return { orientation: 1, file };
}

/** The tag of a TIFF structure; 1 when there is none or it is damaged. */
function readOrientation(buffer) {
  const bytes = new Uint8Array(buffer);
  const start = String.fromCharCode(...bytes.subarray(0, 6)) === "Exif\0\0" ? 6 : 0;
  const view = new DataView(buffer, start);
  try {
    const little = view.getUint16(0) === 0x4949;
    const directory = view.getUint32(4, little);
    const entries = view.getUint16(directory, little);
    for (let i = 0; i < entries; i += 1) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) !== ORIENTATION) continue;
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

/** The image { data, height, width } as its orientation says. */
export function upright({ data, height, width }, orientation) {
  if (orientation === 1) return { data, height, width };
  const channels = data.length / (height * width);
  const swaps = orientation >= 5;
  const [newHeight, newWidth] = swaps ? [width, height] : [height, width];
  const turned = new Uint8Array(data.length);
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const fromBottom = [3, 4, 6, 7].includes(orientation);
  let to = 0;
  for (let row = 0; row < newHeight; row += 1) {
    for (let column = 0; column < newWidth; column += 1) {
      const [y, x] = swaps ? [column, row] : [row, column];
      const from = (fromBottom ? height - 1 - y : y) * width + (fromRight ? width - 1 - x : x);
      for (let c = 0; c < channels; c += 1) turned[to + c] = data[from * channels + c];
      to += channels;
    }
  }
  return { data: turned, height: newHeight, width: newWidth };
}
