// BN-ReLU-max-pool of a stem: 3×3, stride 2, with the borders of `models/layers.py:StemMaxPool`.
//
// Neither the normalised map nor torch's indices of 8 bytes are kept: a byte a result says which of
// the nine it was.
#pragma once

#include "pixels.hpp"
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
template <class Number>
inline void pool(const MapsOf<Number>& x, const Norms& norms, Windows windows, const Maps& out,
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
              const Number* at = x.at((image * x.height + i) * x.width + j) + c;
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

// The windows of a row or column of outputs that hold an input: [low, high).
struct Windows3 {
  int low, high;
  Windows3(int input, int start, int outputs)
      : low((input - start - 1) / 2), high(std::min(outputs, (input - start) / 2 + 1)) {}
};

// Where LANES of those bytes are `tap`, of which `left` are a pixel's.
inline Places where_taken(const uint8_t* taken, int tap, int left) {
  typedef uint8_t Bytes __attribute__((vector_size(LANES)));
  Bytes held{};
  if (left >= LANES)
    std::memcpy(&held, taken, LANES);
  else
    std::memcpy(&held, taken, left);
  // In two steps: GCC 12 takes one of four times the width a number at a time.
  return __builtin_convertvector(__builtin_convertvector(held, Halves), Places) == tap;
}

// scale · g into `into`, whole, and the sums; `gradient` lacks nothing.
template <class Number>
inline void pool_backward(const MapsOf<Number>& x, const Norms& norms, Windows windows,
                          const uint8_t* taken, const Maps& gradient, const MapsOf<Number>& into,
                          Sums sums, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const MaskedOf<Number> masked{x, norm, into, false};
  std::vector<Totals> totals(threads);
  Team::here().run(threads, [&](int index) {
    totals[index] = Totals(x.channels);
    const Share share(static_cast<int64_t>(x.images) * x.height, index, threads);
    for (int64_t line = share.low; line < share.high; ++line) {
      const int64_t image = line / x.height;
      const int y = static_cast<int>(line % x.height);
      const Windows3 rows(y, windows.top, gradient.height);
      for (int column = 0; column < x.width; ++column) {
        const Windows3 columns(column, windows.left, gradient.width);
        for (int c = 0; c < x.channels; c += LANES) {
          const int left = x.channels - c;
          Vector behind{}, sum{}, product{};
          for (int i = rows.low; i < rows.high; ++i)
            for (int j = columns.low; j < columns.high; ++j) {
              const int64_t pixel = (image * gradient.height + i) * gradient.width + j;
              const int tap = 3 * (y - 2 * i - windows.top) + column - 2 * j - windows.left;
              const Vector given = load_own(gradient.at(pixel), c, left);
              behind +=
                  (Vector)((Places)given & where_taken(taken + pixel * x.channels + c, tap, left));
            }
          masked.writer(c, first_lanes(left))(line * x.width + column, behind, sum, product);
          totals[index].add(c, left, sum, product);
        }
      }
      totals[index].fold();
    }
  });
  combine(totals, sums, x.channels);
}

}  // namespace densepath
