// The notes in a PNG that may say how the picture was held: EXIF and XMP, in any of their places.
#pragma once

#include <string>
#include <string_view>

#include "bytes.hpp"
#include "exif.hpp"

namespace densepath {

class PngNotes {
 public:
  // Takes in a chunk by its name; those that hold no notes are passed over.
  //
  // Throws ImageError: a text is compressed in an unknown way, or larger than 1 MiB.
  void take(std::string_view name, Bytes data);

  // What was found. EXIF in a chunk of its own comes before EXIF in a text.
  Notes found() const;

 private:
  void take_text(std::string_view rest);
  void take_compressed_text(std::string_view rest);
  void take_international_text(std::string_view rest);
  void keep(std::string_view key, std::string_view text);

  Notes notes_;
  std::string raw_exif_;
};

}  // namespace densepath
