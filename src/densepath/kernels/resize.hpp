// Pillow's antialiased resizing of uint8 images, bit by bit, by vectors and of the crop alone.
//
// Weights are whole multiples of 2⁻²² and come from `images/resize.py` or
// `deploy/cpp/src/preprocess.cpp`, which compute them as Pillow does. Source: Pillow 13
// `src/libImaging/Resample.c`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace densepath {

// Narrower vectors than AVX-512's are no quicker than Pillow.
#ifdef __AVX512F__
constexpr bool RESIZES_QUICKLY = true;
#else
constexpr bool RESIZES_QUICKLY = false;
#endif

constexpr int WEIGHT_BITS = 22;

// For each new position the first old one and `taps` weights, zero where fewer are needed.
struct Taps {
  int count, taps;
  const int32_t *first, *weights;
};

typedef uint8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef int32_t Sums __attribute__((vector_size(64)));

typedef int32_t Words __attribute__((vector_size(16)));

inline int32_t word(const uint8_t* bytes) {
  int32_t value;
  std::memcpy(&value, bytes, 4);
  return value;
}

// Conversions by hand: GCC 12 takes vectors of bytes apart for __builtin_convertvector.
inline Sums widen(Bytes bytes) {
#if defined(__AVX512F__)
  return (Sums)_mm512_cvtepu8_epi32((__m128i)bytes);
#else
  return __builtin_convertvector(bytes, Sums);
#endif
}

inline Bytes narrow(Sums sums) {  // of values 0 to 255
#if defined(__AVX512F__)
  return (Bytes)_mm512_cvtepi32_epi8((__m512i)sums);
#else
  return __builtin_convertvector(sums, Bytes);
#endif
}

inline Bytes to_bytes(Sums sums) {
  sums >>= WEIGHT_BITS;
  sums = sums < 0 ? Sums{} : sums;
  sums = sums > 255 ? Sums{} + 255 : sums;
  return narrow(sums);
}

constexpr int HALF = 1 << (WEIGHT_BITS - 1);

// New rows of `length` bytes out of old ones, `step` bytes apart. Reads and writes whole vectors.
inline void resize_height(const uint8_t* from, size_t step, int length, Taps rows, uint8_t* to,
                          size_t to_step) {
  for (int y = 0; y < rows.count; ++y) {
    const uint8_t* first = from + static_cast<size_t>(rows.first[y]) * step;
    const int32_t* weights = rows.weights + static_cast<size_t>(y) * rows.taps;
    for (int x = 0; x < length; x += 16) {
      Sums sums = Sums{} + HALF;
      for (int k = 0; k < rows.taps; ++k)
        sums += widen(*reinterpret_cast<const Bytes*>(first + k * step + x)) * weights[k];
      *reinterpret_cast<Bytes*>(to + y * to_step + x) = to_bytes(sums);
    }
  }
}

// New columns out of old ones, of `rows` rows; four rows at a time, four bytes of each, of which
// the last `4 − channels` are overwritten by the next column.
inline void resize_width(const uint8_t* from, size_t step, int rows, int channels, Taps columns,
                         uint8_t* to, size_t to_step) {
  for (int y = 0; y < rows; y += 4) {
    const uint8_t* lines[4];
    uint8_t* results[4];
    for (int r = 0; r < 4; ++r) {  // Beyond the last row, that one again.
      lines[r] = from + static_cast<size_t>(std::min(y + r, rows - 1)) * step;
      results[r] = to + static_cast<size_t>(std::min(y + r, rows - 1)) * to_step;
    }
    for (int x = 0; x < columns.count; ++x) {
      const int32_t* weights = columns.weights + static_cast<size_t>(x) * columns.taps;
      size_t at = static_cast<size_t>(columns.first[x]) * channels;
      Sums sums = Sums{} + HALF;
      for (int k = 0; k < columns.taps; ++k, at += channels) {
        const Words words = {word(lines[0] + at), word(lines[1] + at), word(lines[2] + at),
                             word(lines[3] + at)};
        sums += widen((Bytes)words) * weights[k];
      }
      const Words words = (Words)to_bytes(sums);
      for (int r = 0; r < 4; ++r) {
        const int32_t one = words[r];
        std::memcpy(results[r] + static_cast<size_t>(x) * channels, &one, 4);
      }
    }
  }
}

constexpr size_t SPARE = 64;  // bytes that vectors read and write beyond an image's last

// image [height, width, channels] → to [rows.count, columns.count, channels]; the image and `to`
// have SPARE bytes behind them.
inline void resize(const uint8_t* image, int width, int channels, Taps rows, Taps columns,
                   bool height_first, uint8_t* to) {
  const size_t line = static_cast<size_t>(width) * channels;
  const size_t short_line = static_cast<size_t>(columns.count) * channels;
  const auto range = [](const Taps& taps, int& low, int& high) {
    low = *std::min_element(taps.first, taps.first + taps.count);
    high = *std::max_element(taps.first, taps.first + taps.count) + taps.taps;
  };
  int low, high;
  range(height_first ? columns : rows, low, high);
  if (height_first) {
    const int length = (high - low) * channels;
    const size_t step = static_cast<size_t>(length) + SPARE;
    std::vector<uint8_t> half(rows.count * step + SPARE);
    resize_height(image + static_cast<size_t>(low) * channels, line, length, rows, half.data(),
                  step);
    std::vector<int32_t> first(columns.first, columns.first + columns.count);
    for (int32_t& one : first) one -= low;
    columns.first = first.data();
    std::vector<uint8_t> full(rows.count * (short_line + SPARE) + SPARE);
    resize_width(half.data(), step, rows.count, channels, columns, full.data(), short_line + SPARE);
    for (int y = 0; y < rows.count; ++y)
      std::memcpy(to + y * short_line, full.data() + y * (short_line + SPARE), short_line);
    return;
  }
  const size_t step = short_line + SPARE;
  std::vector<uint8_t> half(static_cast<size_t>(high - low) * step + SPARE);
  resize_width(image + static_cast<size_t>(low) * line, line, high - low, channels, columns,
               half.data(), step);
  std::vector<int32_t> first(rows.first, rows.first + rows.count);
  for (int32_t& one : first) one -= low;
  rows.first = first.data();
  // Each row is written a few bytes too far, where the next one comes.
  resize_height(half.data(), step, static_cast<int>(short_line), rows, to, short_line);
}

}  // namespace densepath
