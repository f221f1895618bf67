// How a picture was held: the orientation in its EXIF or XMP notes.
#pragma once

#include <optional>
#include <string>

#include "bytes.hpp"
#include "densepath/predictor.hpp"

namespace densepath {

// The notes of a file that may hold an orientation.
struct Notes {
  std::optional<std::string> exif;  // A TIFF directory, with or without `Exif\0\0` before it.
  std::string xmp;                  // XML text; empty when there is none.
};

// The orientation, 1 to 8, where 1 is upright. Damaged notes say 1, as do other values.
//
// Source: EXIF 2.3, sections 4.5 and 4.6.4; read as leniently as Pillow 13 reads it.
int orientation(const Notes& notes);

// The picture turned and mirrored so that it is upright.
Image upright(Image image, int orientation);

}  // namespace densepath
