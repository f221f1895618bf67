// The pixels of a PNG: decompressed, unfiltered, put in place, made RGB.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "bytes.hpp"

namespace densepath {

enum class PngKind { unknown, gray, rgb, palette, gray_alpha, rgb_alpha };

// What has to be known to read the pixels.
struct PngHeader {
  uint64_t width = 0;
  uint64_t height = 0;
  PngKind kind = PngKind::unknown;
  size_t depth = 0;     // Bits of a sample: 1, 2, 4, 8 or 16.
  size_t channels = 0;  // Samples of a pixel, 1 to 4.
  bool interlaced = false;
  bool has_transparency = false;
  std::array<uint16_t, 3> transparent{};  // The gray or RGB that is clear.
  std::vector<uint8_t> palette;           // RGB of each entry.
  std::vector<uint8_t> palette_alpha;

  // Depth and colour type as the file gives them; other pairs leave `kind` as it was.
  void set_kind(unsigned bit_depth, unsigned color_type);
};

// Where the compressed pixels come from.
class PngData {
 public:
  virtual ~PngData() = default;

  // The next piece, not empty; nothing where there is no more.
  virtual std::optional<Bytes> next() = 0;
};

// One byte a sample, [height, width, channels]; of 16 bits both bytes, the upper one first.
// Samples of fewer than 8 bits keep their value: 0 to 3 for 2 bits.
//
// Throws ImageError: the data is damaged or too short.
std::vector<uint8_t> read_samples(const PngHeader& header, PngData& data);

// RGB, with whatever is transparent laid over white.
std::vector<uint8_t> to_rgb(const PngHeader& header, const std::vector<uint8_t>& samples);

}  // namespace densepath
