// What a user can mend; the message says what was wrong and the cure.

export class BundleError extends Error {
  name = "BundleError";
}

export class ImageError extends Error {
  name = "ImageError";
}
