// BN-ReLU-max-pool of a stem: 3×3, stride 2, with the borders of `models/layers.py:StemMaxPool`.
//
// Neither the normalised map nor torch's indices of 8 bytes are kept: a byte a result says which of
// the nine it was.
#pragma once

#include "maps.hpp"
#include "team.hpp"

namespace densepath {

// Where a window begins, of the first output: −1 with one pixel of border, 0 without.
struct Windows {
  int top, left;
};

// Of a window the part that lies in the map.
struct Window3 {
  int low, high;
  Window3(int output, int start, int side)
      : low(std::max(0, 2 * output + start)), high(std::min(side, 2 * output + start + 3)) {}
};

// `taken` [pixels of out, channels]: which of the window's nine is the largest, the first of
// equals.
inline void pool(const Maps& x, const Norms& norms, Windows windows, const Maps& out,
                 uint8_t* taken, int threads) {
  const PaddedNorm norm(norms, x.channels);
  Team::here().run(threads, [&](int index) {
    const Share share(static_cast<int64_t>(out.images) * out.height, index, threads);
    for (int64_t line = share.low; line < share.high; ++line) {
      const int64_t image = line / out.height;
      const Window3 rows(static_cast<int>(line % out.height), windows.top, x.height);
      const int start = 2 * static_cast<int>(line % out.height) + windows.top;
      for (int column = 0; column < out.width; ++column) {
        const Window3 columns(column, windows.left, x.width);
        const int64_t pixel = line * out.width + column;
        for (int c = 0; c < x.channels; c += LANES) {
          Vector most = splat(-__builtin_inff()), place{};
          for (int i = rows.low; i < rows.high; ++i)
            for (int j = columns.low; j < columns.high; ++j) {
              const float* at = x.at((image * x.height + i) * x.width + j) + c;
              const Vector value = load_some(at, x.channels - c) * load(norm.scale.get() + c) +
                                   load(norm.shift.get() + c);
              const float tap = static_cast<float>(3 * (i - start) + j - 2 * column - windows.left);
              const auto larger = value > most || value != value;
              most = larger ? value : most;
              place = larger ? splat(tap) : place;
            }
          const int wanted = std::min(LANES, x.channels - c);
          store_some(out.at(pixel) + c, relu(most), wanted);
          for (int lane = 0; lane < wanted; ++lane)
            taken[pixel * x.channels + c + lane] = static_cast<uint8_t>(place[lane]);
        }
      }
    }
  });
}

// scale · g into `into`, whole, and the sums; `gradient` lacks nothing.
inline void pool_backward(const Maps& x, const Norms& norms, Windows windows, const uint8_t* taken,
                          const Maps& gradient, const Maps& into, Sums sums, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const int channels = x.channels;
  std::vector<std::vector<double>> parts(threads, std::vector<double>(2 * channels));
  Team::here().run(threads, [&](int index) {
    const Share share(x.images, index, threads);
    const int64_t area = static_cast<int64_t>(x.height) * x.width;
    for (int64_t p = share.low * area; p < share.high * area; ++p)
      std::memset(into.at(p), 0, sizeof(float) * channels);
    std::vector<float> found(2 * channels);
    for (int64_t line = share.low * gradient.height; line < share.high * gradient.height; ++line) {
      std::fill(found.begin(), found.end(), 0.0f);
      const int64_t image = line / gradient.height;
      const int y = 2 * static_cast<int>(line % gradient.height) + windows.top;
      for (int column = 0; column < gradient.width; ++column) {
        const int64_t pixel = line * gradient.width + column;
        const float* given = gradient.at(pixel);
        const uint8_t* tap = taken + pixel * channels;
        for (int c = 0; c < channels; ++c) {
          const int64_t at = (image * x.height + y + tap[c] / 3) * x.width + 2 * column +
                             windows.left + tap[c] % 3;
          const float value = x.at(at)[c];
          if (value * norm.scale[c] + norm.shift[c] <= 0.0f) continue;
          into.at(at)[c] += norm.scale[c] * given[c];
          found[c] += given[c];
          found[channels + c] += given[c] * (value - norm.centre[c]);
        }
      }
      for (int c = 0; c < 2 * channels; ++c) parts[index][c] += found[c];
    }
  });
  for (int c = 0; c < channels; ++c) {
    sums.gradient[c] = sums.product[c] = 0;
    for (const auto& part : parts) {
      sums.gradient[c] += part[c];
      sums.product[c] += part[channels + c];
    }
  }
}

}  // namespace densepath
