#include "png_pixels.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "decode.hpp"
#include "inflate.hpp"

namespace densepath {
namespace {

// One of the seven pictures that an interlaced file consists of: PNG specification, section 8.2.
struct Pass {
  size_t row, column, row_step, column_step;
};

constexpr Pass WHOLE[] = {{0, 0, 1, 1}};
constexpr Pass INTERLACED[] = {{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4},
                               {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}};

size_t steps(size_t from, size_t size, size_t step) {
  return from >= size ? 0 : (size - from + step - 1) / step;
}

int paeth(int left, int above, int corner) {
  const int from_left = std::abs(above - corner);
  const int from_above = std::abs(left - corner);
  const int from_corner = std::abs(left + above - 2 * corner);
  if (from_left <= from_above && from_left <= from_corner) return left;
  return from_above <= from_corner ? above : corner;
}

// Adds to each byte what `predict` makes of the bytes left, above and above left of it.
template <typename Predict>
void add_prediction(uint8_t* row, const uint8_t* above, size_t size, size_t bpp, Predict predict) {
  const size_t first = std::min(size, bpp);
  for (size_t i = 0; i < first; ++i) {
    row[i] = static_cast<uint8_t>(row[i] + predict(0, above[i], 0));
  }
  for (size_t i = first; i < size; ++i) {
    row[i] = static_cast<uint8_t>(row[i] + predict(row[i - bpp], above[i], above[i - bpp]));
  }
}

// Undoes the filter of one row in place: section 9.2. `bpp` is the bytes of a pixel, at least 1.
void unfilter(unsigned filter, uint8_t* row, const uint8_t* above, size_t size, size_t bpp) {
  const auto add = [&](auto predict) { add_prediction(row, above, size, bpp, predict); };
  if (filter == 1) add([](int left, int, int) { return left; });
  if (filter == 2) add([](int, int up, int) { return up; });
  if (filter == 3) add([](int left, int up, int) { return (left + up) / 2; });
  if (filter == 4) add(paeth);
}

// Rows of compressed data, one after another.
class Rows {
 public:
  Rows(PngData& data, size_t most_bytes, size_t bpp)
      : data_(data), bpp_(bpp), row_(most_bytes + 1), above_(most_bytes + 1) {}

  // The first row of the next pass has nothing above it.
  void start_pass() { std::fill(above_.begin(), above_.end(), uint8_t{0}); }

  // The next row of `size` bytes, unfiltered; valid until the next call.
  const uint8_t* next(size_t size) {
    size_t done = 0;
    while (done < size + 1) {
      if (inflater_.hungry()) feed();
      done += inflater_.fill(row_.data() + done, size + 1 - done);
      // A stream that stops before the row is full is at its end, or wants a dictionary that no
      // PNG has: the rest of the piece is not looked at.
      if (done < size + 1) inflater_.feed({});
    }
    if (row_[0] > 4) {
      throw ImageError("damaged: unrecognized data stream contents when reading image file");
    }
    unfilter(row_[0], row_.data() + 1, above_.data() + 1, size, bpp_);
    row_.swap(above_);
    return above_.data() + 1;
  }

 private:
  void feed() {
    const auto piece = data_.next();
    if (!piece) throw ImageError("damaged: image file is truncated (0 bytes not processed)");
    inflater_.feed(*piece);
  }

  PngData& data_;
  size_t bpp_;
  Inflater inflater_;
  std::vector<uint8_t> row_, above_;
};

// Sample `i` of a row of samples below 8 bits.
uint8_t small_sample(const uint8_t* row, size_t i, size_t depth) {
  const size_t bit = i * depth;
  const auto shift = 8 - depth - bit % 8;
  return static_cast<uint8_t>((row[bit / 8] >> shift) & ((1U << depth) - 1));
}

struct Pixel {
  std::array<uint8_t, 3> rgb;
  uint8_t alpha = 255;
};

constexpr Pixel gray_pixel(uint8_t value, uint8_t alpha = 255) {
  return {{value, value, value}, alpha};
}

// One pixel of a kind, from its samples. As Pillow does, the transparent colour is compared in its
// lower 8 bits with what has become of the samples, but for gray of 16 bits in full.
Pixel to_pixel(const PngHeader& header, const uint8_t* samples) {
  const size_t width = header.depth == 16 ? 2 : 1;
  const auto value = [&](size_t i) { return samples[i * width]; };
  const auto lower = [&](size_t i) { return static_cast<uint8_t>(header.transparent[i] & 0xff); };
  const auto clear_if = [&](bool same) {
    return static_cast<uint8_t>(header.has_transparency && same ? 0 : 255);
  };
  switch (header.kind) {
    case PngKind::gray: {
      if (header.depth == 16) {
        return gray_pixel(value(0),
                          clear_if((value(0) << 8 | samples[1]) == header.transparent[0]));
      }
      const auto scaled = static_cast<uint8_t>(value(0) * 255 / ((1 << header.depth) - 1));
      const bool bit = header.depth == 1;
      const int clear = bit ? (header.transparent[0] != 0 ? 255 : 0) : lower(0);
      return gray_pixel(scaled, clear_if(scaled == clear));
    }
    case PngKind::rgb:
      return {{value(0), value(1), value(2)},
              clear_if(value(0) == lower(0) && value(1) == lower(1) && value(2) == lower(2))};
    case PngKind::palette: {
      const size_t at = size_t{value(0)} * 3;
      const auto part = [&](size_t i) -> uint8_t {
        return at + i < header.palette.size() ? header.palette[at + i] : 0;
      };
      const size_t entry = value(0);
      const bool has_alpha = entry < header.palette_alpha.size();
      return {{part(0), part(1), part(2)}, has_alpha ? header.palette_alpha[entry] : uint8_t{255}};
    }
    case PngKind::gray_alpha:
      return gray_pixel(value(0), value(1));
    default:
      return {{value(0), value(1), value(2)}, value(3)};
  }
}

}  // namespace

void PngHeader::set_kind(unsigned bit_depth, unsigned color_type) {
  const bool deep = bit_depth == 8 || bit_depth == 16;
  const bool small = bit_depth == 1 || bit_depth == 2 || bit_depth == 4;
  const auto become = [&](PngKind new_kind, size_t num_channels) {
    kind = new_kind;
    channels = num_channels;
    depth = bit_depth;
  };
  if (color_type == 0 && (deep || small)) become(PngKind::gray, 1);
  if (color_type == 2 && deep) become(PngKind::rgb, 3);
  if (color_type == 3 && (small || bit_depth == 8)) become(PngKind::palette, 1);
  if (color_type == 4 && deep) become(PngKind::gray_alpha, 2);
  if (color_type == 6 && deep) become(PngKind::rgb_alpha, 4);
}

std::vector<uint8_t> read_samples(const PngHeader& header, PngData& data) {
  const auto width = static_cast<size_t>(header.width);
  const auto height = static_cast<size_t>(header.height);
  const size_t pixel_bits = header.channels * header.depth;
  const size_t pixel_bytes = (pixel_bits + 7) / 8;
  std::vector<uint8_t> samples(width * height * pixel_bytes);
  Rows rows(data, (width * pixel_bits + 7) / 8, pixel_bytes);
  const Pass* first = header.interlaced ? INTERLACED : WHOLE;
  const Pass* last = header.interlaced ? std::end(INTERLACED) : std::end(WHOLE);
  for (const Pass* pass = first; pass != last; ++pass) {
    const size_t columns = steps(pass->column, width, pass->column_step);
    if (columns == 0) continue;
    rows.start_pass();
    for (size_t y = pass->row; y < height; y += pass->row_step) {
      const uint8_t* row = rows.next((columns * pixel_bits + 7) / 8);
      uint8_t* to = samples.data() + (y * width + pass->column) * pixel_bytes;
      if (pass->column_step == 1 && header.depth >= 8) {
        std::copy_n(row, width * pixel_bytes, to);
        continue;
      }
      for (size_t i = 0; i < columns; ++i, to += pass->column_step * pixel_bytes) {
        if (header.depth < 8) {
          *to = small_sample(row, i, header.depth);
        } else {
          std::copy_n(row + i * pixel_bytes, pixel_bytes, to);
        }
      }
    }
  }
  return samples;
}

std::vector<uint8_t> to_rgb(const PngHeader& header, const std::vector<uint8_t>& samples) {
  const bool plain = header.kind == PngKind::rgb && header.depth == 8 && !header.has_transparency;
  if (plain) return samples;
  const size_t pixel_bytes = (header.channels * header.depth + 7) / 8;
  std::vector<uint8_t> rgb(samples.size() / pixel_bytes * 3);
  const uint8_t* from = samples.data();
  for (size_t at = 0; at < rgb.size(); at += 3, from += pixel_bytes) {
    const Pixel pixel = to_pixel(header, from);
    for (size_t i = 0; i < 3; ++i) rgb[at + i] = over_white(pixel.rgb[i], pixel.alpha);
  }
  return rgb;
}

}  // namespace densepath
