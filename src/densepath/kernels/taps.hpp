// 3×3 convolutions in AMX's registers, of pixels that stand in one line; those in groups plane by
// plane.
//
// Rows stand behind one another with a column of zeros on either side: so the pixels that a tap
// reads lie at a fixed distance from the place that they are summed up for, and a product reads its
// left operand where it stands. What is computed for the columns of zeros is of no use.
#pragma once

#include <vector>

#include "bfloat16.hpp"

namespace densepath {

// Whether such convolutions of bfloat16 go this way.
inline bool multiplies_taps(int groups, int stride) {
  return groups == 1 && stride == 1 && may_use_squares();
}

// Whether those in groups of so many inputs, and as many outputs, do.
inline bool multiplies_planes(int width) { return width <= SQUARE_DEPTH && may_use_squares(); }

// Inputs of a pixel, with zeros up to a whole step; of few up to half of one, so that a step takes
// two neighbouring pixels.
inline int tap_inputs(int inputs) {
  return inputs <= SQUARE ? SQUARE : round_up(inputs, SQUARE_DEPTH);
}

// Numbers of a row of three taps of such pixels, in whole steps: with what stands behind them.
inline int tap_row(int apart) { return round_up(3 * apart, SQUARE_DEPTH); }

// The nine taps' weights, of which value(tap, input, output) is one.
template <class Value>
inline PackedPairs pack_taps(int inputs, int outputs, const Value& value) {
  const int apart = tap_inputs(inputs), row = tap_row(apart);
  std::vector<float> dense(static_cast<size_t>(3) * row * outputs);
  for (int tap = 0; tap < 9; ++tap)
    for (int i = 0; i < inputs; ++i)
      for (int o = 0; o < outputs; ++o)
        dense[static_cast<size_t>(tap / 3 * row + tap % 3 * apart + i) * outputs + o] =
            value(tap, i, o);
  return PackedPairs(dense.data(), 3 * row, outputs);
}

// Channels [first, first + count) of a map.
struct Span {
  int first, count;
};

// Channels in planes: of as many whole groups as 16 hold, or of one wider group.
struct Planes {
  int all, width;      // channels; of a group
  int slot, channels;  // numbers of a plane's pixel; channels of a plane, but perhaps of the last
  Planes(int all_, int width_)
      : all(all_), width(width_), slot(tap_inputs(width)), channels(slot / width * width) {}
  int count() const { return (all + channels - 1) / channels; }
  Span span(int plane) const {
    const int first = plane * channels;
    return {first, std::min(channels, all - first)};
  }

  // A plane's weights, of which value(tap, input, output) is one; zeros between groups.
  template <class Value>
  PackedPairs pack(int plane, const Value& value) const {
    const Span own = span(plane);
    return pack_taps(slot, slot, [&](int tap, int i, int o) {
      const bool inside = i < own.count && o < own.count && i / width == o / width;
      return inside ? value(tap, own.first + i, own.first + o) : 0.0f;
    });
  }
};

// Places from one that is summed up for to those of a tap; rows of so many columns.
inline long tap_place(int tap, int columns) {
  return static_cast<long>(tap / 3) * columns + tap % 3;
}

// results [places, weights.padded] of every `stride`th place from `first` on, which stand `apart`
// numbers from one another in rows of so many columns; whole squares of them are read.
inline void multiply_taps(const void* first, long apart, int columns, const PackedPairs& weights,
                          int places, float* results, Ending ending, int stride = 1) {
  const long bytes = apart * static_cast<long>(sizeof(BFloat16)), row = columns * bytes;
  const long rows[3] = {0, row, 2 * row};
  const int steps = tap_row(static_cast<int>(apart)) / SQUARE_DEPTH;
  const SquareLeft left{first, stride * bytes, rows, 3, steps};
  for (int j = 0; j < weights.padded; j += PANEL) {
    Ending here = ending;
    if (here.bias) here.bias += j;
    const int width = weights.panel_width(j);
    multiply_by_squares(left, places, weights.panel(j, 0), width, results + j, weights.padded, here,
                        width, Nothing());
  }
}

}  // namespace densepath
