// One image file → uint8 height × width × channels, by the rules of densepath's `images/decode.py`
// as far as a browser decodes: docs/web.md says what differs.
import { ImageError } from "./errors.js";
import { readHeader } from "./header.js";
import { takeOrientation, upright } from "./webp.js";

const MAX_PIXELS = 89_478_485;
const STRIP_PIXELS = 1 << 20;

/** The image of a File or Blob: { data: Uint8Array, height, width }. Throws an ImageError. */
export async function decode(file, channels) {
  const { kind, width, height } = await readHeader(file);
  checkPixels(width, height);
  if (kind !== "WebP") return decodeAs(kind, file, channels);
  const { orientation, file: plain } = await takeOrientation(file);
  return upright(await decodeAs(kind, plain, channels), orientation);
}

/** The image as the browser decodes it. */
async function decodeAs(kind, file, channels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new ImageError(`a damaged ${kind} file, or one too large for the browser`);
  }
  try {
    const { width, height } = bitmap;
    checkPixels(width, height); // A header may say nothing, or less.
    return { data: pixels(bitmap, channels), height, width };
  } finally {
    bitmap.close();
  }
}

function checkPixels(width, height) {
  if (width * height <= MAX_PIXELS) return;
  throw new ImageError(`${width} × ${height} is more than the ${MAX_PIXELS.toLocaleString("en")} `
    + "pixels allowed");
}

/** The bitmap over white: strip by strip, since a canvas of the whole would be copied once more. */
function pixels(bitmap, channels) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  const data = new Uint8Array(width * height * channels);
  const copy = channels === 1 ? copyGray : copyColours;
  for (let top = 0; top < height; top += rows) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const strip = context.getImageData(0, 0, width, Math.min(rows, height - top)).data;
    copy(strip, data, top * width * channels);
  }
  return data;
}

function copyColours(rgba, data, at) {
  for (let i = 0; i < rgba.length; i += 4, at += 3) {
    data[at] = rgba[i];
    data[at + 1] = rgba[i + 1];
    data[at + 2] = rgba[i + 2];
  }
}

// ITU-R 601-2 luma in 1/65536. Source: Pillow `Convert.c`, L24.
function copyGray(rgba, data, at) {
  for (let i = 0; i < rgba.length; i += 4, at += 1) {
    data[at] = (rgba[i] * 19595 + rgba[i + 1] * 38470 + rgba[i + 2] * 7471 + 0x8000) >> 16;
  }
}
