// One image file → uint8 height × width × channels, by the rules of densepath's `data/decode.py`
// as far as a browser decodes: docs/web.md says what differs.
import { ImageError } from "./errors.js";
import { takeOrientation, upright } from "./webp.js";

const MAX_PIXELS = 89_478_485;
const STRIP_PIXELS = 1 << 20;
const ascii = (text) => Array.from(text, (letter) => letter.charCodeAt(0));
// First bytes of a file, and what it is.
const KINDS = [
  [[0xff, 0xd8, 0xff], "JPEG"],
  [[0x89, ...ascii("PNG\r\n"), 0x1a, 0x0a], "PNG"],
  [ascii("GIF8"), "GIF"],
  [ascii("BM"), "BMP"],
];
const OTHERS = [
  [ascii("II*\0"), "a TIFF image, which browsers do not read; save it as PNG"],
  [ascii("MM\0*"), "a TIFF image, which browsers do not read; save it as PNG"],
  [ascii("%PDF"), "a PDF, not an image; save its pages as PNG"],
  [ascii("\0\0\0\fjP  "), "a JPEG 2000 image, a kind that is not read; save it as PNG"],
  [ascii("PK\x03\x04"), "a zip archive, not an image"],
  [ascii("version https://git-lfs"), "a Git LFS pointer, not the image itself"],
];
const BRANDS = {
  avif: "an AVIF image, a kind that is not read; save it as PNG",
  heic: "a HEIC photo, a kind that is not read; save it as JPEG",
  heix: "a HEIC photo, a kind that is not read; save it as JPEG",
  mif1: "a HEIF photo, a kind that is not read; save it as JPEG",
};

/** The image of a File or Blob: { data: Uint8Array, height, width }. Throws an ImageError. */
export async function decode(file, channels) {
  if (file.size === 0) throw new ImageError("the file is empty");
  const kind = await kindOf(file);
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
    if (width * height > MAX_PIXELS) {
      throw new ImageError(`${width} × ${height} is more than the `
        + `${MAX_PIXELS.toLocaleString("en")} pixels allowed`);
    }
    return { data: pixels(bitmap, channels), height, width };
  } finally {
    bitmap.close();
  }
}

/** JPEG, PNG, GIF, BMP or WebP. */
async function kindOf(file) {
  const start = new Uint8Array(await file.slice(0, 64).arrayBuffer());
  const begins = (bytes) => bytes.every((byte, i) => start[i] === byte);
  const known = KINDS.find(([bytes]) => begins(bytes));
  if (known) return known[1];
  const text = String.fromCharCode(...start);
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  throw new ImageError(otherKind(begins, text));
}

function otherKind(begins, text) {
  const other = OTHERS.find(([bytes]) => begins(bytes));
  if (other) return other[1];
  if (text.slice(4, 8) === "ftyp") {
    return BRANDS[text.slice(8, 12)] ?? "a video or another media file, not an image";
  }
  const start = text.trimStart().toLowerCase();
  if (start.startsWith("<!doctype") || start.startsWith("<html")) return "a web page, not an image";
  if (start.startsWith("<svg")) return "an SVG drawing, not pixels; save it as PNG";
  if (start.startsWith("<?xml")) return "XML text, not an image";
  if (/^P[1-6]\s/.test(text)) return "a PPM image, which browsers do not read; save it as PNG";
  return "not an image of a known kind (JPEG, PNG, GIF, WebP, BMP)";
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
