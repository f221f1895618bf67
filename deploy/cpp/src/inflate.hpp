// zlib streams: of known bound for notes, piece by piece for pixels.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "bytes.hpp"

namespace densepath {

// Decompresses what it is given into the room it is given.
class Inflater {
 public:
  Inflater();
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // The next compressed bytes; those given before must have been used up.
  void feed(Bytes input);
  bool hungry() const { return stream_.avail_in == 0; }

  // Fills [to, to + room) as far as the input goes. Returns the bytes written.
  //
  // Throws ImageError: the stream is damaged.
  size_t fill(uint8_t* to, size_t room);

 private:
  z_stream stream_{};
};

// The whole of a compressed text; nothing where it is damaged.
//
// Throws ImageError: it has more than `most_bytes`.
std::optional<std::string> inflate_text(Bytes compressed, size_t most_bytes);

}  // namespace densepath
