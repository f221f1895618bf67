// What the first bytes of an image file say: its kind and its size, before anything is decoded.
import { ImageError } from "./errors.js";

const START_BYTES = 1 << 18; // JPEG's sizes stand behind its EXIF, thumbnail and colour profile.
const ascii = (text) => Array.from(text, (letter) => letter.charCodeAt(0));
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
];
const BRANDS = {
  avif: "an AVIF image, a kind that this page does not read; save it as PNG",
  heic: "a HEIC photo, a kind that this page does not read; save it as JPEG",
  heix: "a HEIC photo, a kind that this page does not read; save it as JPEG",
  mif1: "a HEIF photo, a kind that this page does not read; save it as JPEG",
};
const TEXTS = [
  [/^(<!doctype|<html)/i, "a web page, not an image"],
  [/^<svg/i, "an SVG drawing, not pixels; save it as PNG"],
  [/^<\?xml/i, "XML text, not an image"],
  [/^version https:\/\/git-lfs/, "a Git LFS pointer, not the image itself; run `git lfs pull`"],
  [/^P[1-6]\s/, "a PPM image, which browsers do not read; save it as PNG"],
  [/^\0+$/, "nothing but zero bytes"],
];

/** { kind, width, height } of a File; the sizes are 0 where they cannot be found. */
export async function readHeader(file) {
  if (file.size === 0) throw new ImageError("the file is empty");
  const view = new DataView(await file.slice(0, START_BYTES).arrayBuffer());
  const kind = kindOf(new Uint8Array(view.buffer, 0, Math.min(view.byteLength, 64)));
  try {
    const [width, height] = SIZES[kind](view);
    return { kind, width, height };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { kind, width: 0, height: 0 };
  }
}

/** JPEG, PNG, GIF, BMP or WebP; otherwise an ImageError says what the file is instead. */
function kindOf(start) {
  const begins = ([bytes]) => bytes.every((byte, i) => start[i] === byte);
  const text = String.fromCharCode(...start);
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  const known = KINDS.find(begins);
  if (known) return known[1];
  const other = OTHERS.find(begins);
  if (other) throw new ImageError(other[1]);
  if (text.slice(4, 8) === "ftyp") {
    throw new ImageError(BRANDS[text.slice(8, 12)] ?? "a video or another media file, not an image");
  }
  const words = text.replace(/^\xef\xbb\xbf/, "").trimStart();
  const written = TEXTS.find(([pattern]) => pattern.test(words));
  throw new ImageError(written?.[1] ?? "not an image of a known kind (JPEG, PNG, GIF, WebP, BMP)");
}

// Where each kind keeps its width and height. Sources: ITU-T T.81 B.2.2, PNG 1.2 section 4.1.1,
// GIF89a section 18, BITMAPINFOHEADER, the WebP container specification.
const SIZES = {
  JPEG: jpegSize,
  PNG: (view) => [view.getUint32(16), view.getUint32(20)],
  GIF: (view) => [view.getUint16(6, true), view.getUint16(8, true)],
  BMP: (view) => (view.getUint32(14, true) === 12
    ? [view.getUint16(18, true), view.getUint16(20, true)]
    : [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))]),
  WebP: webpSize,
};

function jpegSize(view) {
  for (let at = 2; ;) {
    if (view.getUint8(at) !== 0xff) return [0, 0];
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += marker === 0xff ? 1 : 2 + view.getUint16(at + 2);
  }
}

function webpSize(view) {
  const kind = String.fromCharCode(view.getUint8(15));
  if (kind === "X") return [24, 27].map((at) => 1 + (view.getUint32(at, true) & 0xffffff));
  if (kind === "L") {
    const bits = view.getUint32(21, true);
    return [1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)];
  }
  return [26, 28].map((at) => view.getUint16(at, true) & 0x3fff);
}
