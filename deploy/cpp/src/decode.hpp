// One image file → uint8 RGB or gray; or an ImageError that says why not.
//
// The same rules as `densepath.images.decode`, for JPEG and PNG: EXIF orientation is applied,
// transparency is laid over white, of 16 bits the upper 8 are kept, CMYK becomes RGB by Pillow's
// formula. Sizes are read from the header and refused before anything is decoded; damaged files
// are refused, never half read. docs/data.md has the table.
//
// For a network with an `intensity`, or of other channels than 1 and 3, DICOM, .npy and TIFF files
// are read, too, and all files by their values: values.hpp.
#pragma once

#include <cstddef>
#include <string>

#include "bytes.hpp"
#include "densepath/predictor.hpp"
#include "intensity.hpp"
#include "values.hpp"

namespace densepath {

// Above this Pillow warns of a decompression bomb (Pillow 13 `Image.MAX_IMAGE_PIXELS`).
constexpr uint64_t MAX_PIXELS = 89'478'485;

// The image in the file `path`, upright, with 3 channels (RGB) or 1 (ITU-R 601-2 luma), or, of
// values, as many as the network takes.
//
// Throws ImageError: it cannot be read; `what()` is the reason.
Image open_image(const std::string& path, const ReadAs& read_as);

// The image in a file whose bytes are in memory. Throws as `open_image`.
Image open_image_bytes(Bytes file, const ReadAs& read_as);

// The image whose file's bytes are `file`, which may end early or be anything else.
Image decode_image(Bytes file, const ReadAs& read_as);

// Each kind's own decoder: RGB, not yet turned, which `orientation` (1 to 8) is left to say.
Image decode_jpeg(Bytes file, int& orientation);
Image decode_png(Bytes file, int& orientation);

// Each kind's own reader of values, for a network of so many channels. Throws ImageError.
Values read_png(Bytes file, size_t channels);
Values read_npy(Bytes file, size_t channels);
Values read_dicom(Bytes file);
#ifdef DENSEPATH_TIFF
Values read_tiff(Bytes file, size_t channels);
#endif

// Returns when height × width may be decoded. Throws ImageError.
void check_pixels(uint64_t width, uint64_t height);

// value × alpha + white × (1 − alpha), rounded as Pillow's `alpha_composite` does.
uint8_t over_white(uint8_t value, uint8_t alpha);

// a · b / 255, rounded (Pillow's MULDIV255).
uint8_t share_of(unsigned a, unsigned b);

}  // namespace densepath
