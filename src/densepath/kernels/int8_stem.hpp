// The first and the last layer in INT8: images have signs, and the features few rows.
#pragma once

#include <cmath>

#include "int8_layers.hpp"

namespace densepath {

// The padded image: pixels of whole quads of levels.
struct ByteImage {
  uint8_t* data;
  int whole;  // pixels of a padded row
  int kernel, stride;
};

// A level stands for (level − zero) · step; the border is `zero`, and the bias makes up for it.
struct ByteStem {
  int channels = 0, room = 0;
  std::vector<float> scale, zero;  // levels = value · scale + zero
  PackedBytes weights;
  ByteEnding ending;

  // An image whose every pixel is the border's.
  ByteBuffer blank(size_t pixels) const {
    ByteBuffer made = bytes(pixels * room);
    for (size_t p = 0; p < pixels; ++p)
      for (int c = 0; c < channels; ++c)
        made[p * room + c] = static_cast<uint8_t>(std::lround(zero[c]));
    return made;
  }

  // image [channels, height, width] → the inside.
  void enter(const float* image, int height, int width, const ByteImage& to, Part part) const {
    const int pad = to.kernel / 2;
    int low, high;
    part.share(height, low, high);
    for (int y = low; y < high; ++y) {
      uint8_t* row = to.data + (static_cast<size_t>(y + pad) * to.whole + pad) * room;
      for (int first = 0; first < channels; first += 4)
        enter_quads(image, first, height, width, y, row);
    }
  }

  // One row of outputs, `ld` floats apart.
  void run(const ByteImage& in, int y, int width, float* to, long ld) const {
    const long line = static_cast<long>(in.whole) * room;
    const int pieces = (width + MR - 1) / MR;
    Row rows[MR];
    for (int u = 0; u < pieces; ++u) {
      const int x = width * u / pieces, count = width * (u + 1) / pieces - x;
      for (int r = 0; r < count; ++r) rows[r] = to + (x + r) * ld;
      const long step = static_cast<long>(in.stride) * room;
      const uint8_t* corner = in.data + y * in.stride * line + x * step;
      multiply_bytes(weights, {corner, step, in.kernel * room / 4, 1, in.kernel, 0, line}, count,
                     ending.at(0, false), rows);
    }
  }

 private:
  // Channels from `first` on, four at most, of one row.
  void enter_quads(const float* image, int first, int height, int width, int y,
                   uint8_t* row) const {
    const int count = std::min(4, channels - first);
    const float* from[4];
    for (int c = 0; c < count; ++c)
      from[c] = image + (static_cast<size_t>(first + c) * height + y) * width;
    int x = 0;
    for (; x < width; x += LANES) {
      const int here = std::min(LANES, width - x);
      Integers quads{};
      for (int c = 0; c < count; ++c) {
        const Vector value = load_some(from[c] + x, here) * splat(scale[first + c]);
        quads |= (to_levels(value + splat(zero[first + c])) & 255) << (8 * c);
      }
      if (room == 4 && here == LANES) {
        *reinterpret_cast<Integers*>(row + x * 4) = quads;
      } else {
        for (int k = 0; k < here; ++k) {
          const int32_t quad = quads[k];
          std::memcpy(row + static_cast<size_t>(x + k) * room + first, &quad, 4);
        }
      }
    }
  }
};

// Logits of features in 16 bits, scaled by the largest of each image: two rows of bytes.
struct ByteClassifier {
  PackedBytes weights;
  Floats scale, bias;

  int classes() const { return weights.outputs; }

  void run(const float* features, int count, int inputs, float* logits, Scratch& own) const {
    const int outputs = classes();
    const long lda = round_up(inputs, 64);
    uint8_t* left = own.level(2 * lda);
    float* sums = own.result(2 * static_cast<size_t>(weights.padded));
    const Floats ones = floats(weights.padded), zeros = floats(weights.padded);
    for (int o = 0; o < outputs; ++o) ones[o] = 1;
    const Row rows[2] = {sums, sums + weights.padded};
    for (int k = 0; k < count; ++k) {
      const float step = enter(features + static_cast<size_t>(k) * inputs, inputs, left, lda);
      multiply_bytes(weights, {left, lda, weights.quads}, 2,
                     {ones.get(), zeros.get(), false, false, false}, rows);
      for (int o = 0; o < outputs; ++o)
        logits[static_cast<size_t>(k) * outputs + o] =
            (sums[o] * 256 + sums[weights.padded + o]) * (scale[o] * step) + bias[o];
    }
  }

 private:
  // Two rows of bytes, high and low; the step between levels comes back.
  static float enter(const float* features, int inputs, uint8_t* left, long lda) {
    float most = 0;
    for (int c = 0; c < inputs; ++c) {
      if (std::isnan(features[c])) return features[c];
      most = std::max(most, features[c]);
    }
    const float inverse = most > 0 ? 65535 / most : 0;
    std::memset(left, 0, 2 * lda);
    for (int c = 0; c < inputs; ++c) {
      const int level = static_cast<int>(std::lrint(std::min(65535.0f, features[c] * inverse)));
      left[c] = static_cast<uint8_t>(level >> 8);
      left[lda + c] = static_cast<uint8_t>(level & 255);
    }
    return most / 65535;
  }
};

}  // namespace densepath
