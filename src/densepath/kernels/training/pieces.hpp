// The operands of a backward piece of BN-ReLU-1×1: some pixels' gradients and normalised inputs,
// laid out for products of floats or of bfloat16.
//
// The sums of the gradient of the inputs are over outputs, those of the gradient of the weights
// over pixels. So in bfloat16 the gradient is held twice: in pairs of outputs, and in pairs of
// pixels.
#pragma once

#include <type_traits>

#include "../bfloat16.hpp"

namespace densepath {

// Pixels of a piece: whole tiles, whole pairs; or whole steps of AMX.
template <class Number>
constexpr int PIECE = 96 / MR * MR;
template <>
constexpr int PIECE<BFloat16> = HAS_SQUARES ? 3 * SQUARE_DEPTH : 96 / MR * MR;
// Channels of a piece; with AMX more, for memory that is read in its order comes more quickly.
template <class Number>
constexpr int BREADTH = 4 * PANEL;
template <>
constexpr int BREADTH<BFloat16> = (HAS_SQUARES ? 8 : 4) * PANEL;

// visit(first, count) of outputs in even tiles, none of which lies in two parts of KC.
template <class Visit>
inline void each_tile(int outputs, const Visit& visit) {
  for (int part = 0; part < outputs; part += KC) {
    const int deep = std::min(KC, outputs - part), tiles = (deep + MR - 1) / MR;
    for (int i = 0; i < tiles; ++i)
      visit(part + deep * i / tiles, deep * (i + 1) / tiles - deep * i / tiles);
  }
}

// c[rows, width] of a left operand that is read by columns, LDA apart.
template <class Number>
inline void multiply_turned(const Number* columns, int rows, const float* panel, int width,
                            int count, float* c, long ldc, bool add) {
  const Ending ending{nullptr, add, false};
  if (width == PANEL)
    tile_of<2, 1, LDA>(rows, columns, panel, count, c, ldc, ending, width);
  else
    tile_of<1, 1, LDA>(rows, columns, panel, count, c, ldc, ending, width);
}

// A piece's gradient [pixels, outputs], the left operand of both products.
template <class Number>
class PieceGradient;

template <>
class PieceGradient<float> {
 public:
  explicit PieceGradient(int outputs)
      : data_(floats(round_up(outputs, KC) / KC * PIECE<float> * LDA)) {}

  // A vector of a pixel's outputs, from `o` on.
  void keep(int r, int o, Vector value) const { store(at(r, o), value); }
  // All pixels' outputs are kept.
  void end(int, int) const {}
  // Where a pixel's outputs stand, APART.
  const float* row(int r, int o) const { return at(r, o); }

  // Turned by a panel of the inputs: c[outputs, width] of so many pixels.
  template <class Between>
  void times(int rows, int outputs, const float* panel, int width, float* c, long ldc, bool add,
             const Between& between) const {
    each_tile(outputs, [&](int o, int high) {
      multiply_turned(at(0, o), high, panel, width, rows, c + o * ldc, ldc, add);
      between();
    });
  }

 private:
  float* at(int r, int o) const {
    return data_.get() + static_cast<size_t>(o / KC) * PIECE<float> * LDA + r * LDA + o % KC;
  }
  Floats data_;
};

template <>
class PieceGradient<BFloat16> {
 public:
  explicit PieceGradient(int outputs)
      : turned_(may_use_squares()),
        rows_(floats(round_up(outputs, DEEP) / DEEP * DEEP_ROWS * LDA)),
        columns_(floats(round_up(outputs, KC) / KC * PAIRS * LDA)) {}

  void keep(int r, int o, Vector value) const {
    store(at(r, o), value);
    if (!turned_) store_half(columns_.get() + place(r / 2, o), value, r % 2);
  }
  void end(int rows, int outputs) const {
    end_rows(at(0, outputs / DEEP * DEEP), rows, outputs % DEEP);
    if (turned_) turn(rows, outputs);
  }
  const BFloat16* row(int r, int o) const { return at(r, o); }

  template <class Between>
  void times(int rows, int outputs, const float* panel, int width, float* c, long ldc, bool add,
             const Between& between) const {
    if (turned_)
      return multiply_by_squares(
          {columns_.get(), PAIRS * sizeof(float), nullptr, 1, square_steps(rows)},
          round_up(outputs, SQUARE), panel, width, c, ldc, {nullptr, add, false}, width, between);
    each_tile(outputs, [&](int o, int high) {
      const auto* from = reinterpret_cast<const BFloat16*>(columns_.get() + place(0, o));
      multiply_turned(from, high, panel, width, rows, c + o * ldc, ldc, add);
      between();
    });
  }

 private:
  static constexpr int DEEP = DEPTH<BFloat16>, APART_ = APART<BFloat16>;
  static constexpr int DEEP_ROWS = PIECE<BFloat16>, PAIRS = DEEP_ROWS / 2;
  BFloat16* at(int r, int o) const {
    return reinterpret_cast<BFloat16*>(rows_.get()) +
           static_cast<size_t>(o / DEEP) * DEEP_ROWS * APART_ + r * APART_ + o % DEEP;
  }
  static size_t place(int pair, int o) {
    return static_cast<size_t>(o / KC) * PAIRS * LDA + pair * LDA + o % KC;
  }
  // Pixels as rows of outputs, with zeros behind the last up to a whole step.
  void turn(int rows, int outputs) const {
    for (int r = rows; r < round_up(rows, SQUARE_DEPTH); ++r)
      for (int o = 0; o < outputs; o += LANES) store(at(r, o), Vector{});
    for (int o = 0; o < outputs; o += SQUARE)
      for (int r = 0; r < rows; r += SQUARE_DEPTH)
        turn_pairs(at(r, o), APART_, columns_.get() + o * PAIRS + r / 2, PAIRS);
  }

  // Whether columns are rows of outputs, for AMX, instead of pairs of pixels.
  const bool turned_;
  Floats rows_, columns_;
};

// A piece's normalised inputs [pixels, channels], the right operand of the product that sums over
// pixels: in panels, rows of which are pixels or pairs of them.
template <class Number>
class PieceInputs {
 public:
  PieceInputs() : data_(floats(static_cast<size_t>(PIECE<Number>) * BREADTH<Number>)) {}

  // A piece of so many channels comes.
  void begin(int channels) { breadth_ = round_up(channels, LANES); }
  // A vector of a pixel's channels, from `k` on.
  void keep(int r, int k, Vector value) const {
    const int width = std::min(PANEL, breadth_ - k / PANEL * PANEL);
    if constexpr (PAIRED)
      store_half(panel(k) + r / 2 * width + k % PANEL, value, r % 2);
    else
      store(panel(k) + r * width + k % PANEL, value);
  }
  float* panel(int k) const {
    return data_.get() +
           static_cast<size_t>(k / PANEL * PANEL) * (PAIRED ? PIECE<Number> / 2 : PIECE<Number>);
  }

 private:
  static constexpr bool PAIRED = std::is_same_v<Number, BFloat16>;
  Floats data_;
  int breadth_ = 0;
};

}  // namespace densepath
