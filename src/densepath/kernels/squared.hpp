// 3×3 convolutions of a network's inference in AMX's registers; see taps.hpp.
#pragma once

#include "image_maps.hpp"
#include "taps.hpp"

namespace densepath {

class Squared {
 public:
  Squared() = default;
  // `taps` [3, 3, inputs, outputs].
  Squared(const float* taps, int inputs, int outputs)
      : inputs_(inputs),
        outputs_(outputs),
        weights_(pack_taps(inputs, outputs, [&](int tap, int i, int o) {
          return taps[(static_cast<size_t>(tap) * inputs + i) * outputs + o];
        })) {}
  explicit operator bool() const { return static_cast<bool>(weights_); }

  // A map of bfloat16 in the memory of floats, with what the last square reads behind its rows.
  Padded padded(float* data, int height, int width) const {
    const int columns = width + 2, more = (2 * SQUARE + columns - 1) / columns;
    return {data, height, width, height + 2 + more, columns, tap_inputs(inputs_) / 2};
  }

  // One pixel's inputs → a pixel of that.
  void place(const float* from, float* to) const {
    store_padded(reinterpret_cast<BFloat16*>(to), from, inputs_, tap_inputs(inputs_));
  }

  // Columns of `out` from `column` on.
  void run(const Padded& in, const Map& out, int column, const float* bias, bool relu, Part part,
           Scratch& own) const {
    constexpr int TOGETHER = 4;  // products of two squares, before they are taken to the map
    const int columns = in.whole_width, total = out.height * columns - 2, unit = 2 * SQUARE;
    const int padded = weights_.padded;
    float* results = own.result(static_cast<size_t>(TOGETHER) * unit * padded);
    int low, high;
    part.share((total + unit - 1) / unit, low, high);
    for (int u = low; u < high; u += TOGETHER) {
      const int first = u * unit, end = std::min({total, (u + TOGETHER) * unit, high * unit});
      multiply_taps(in.at(-1, -1) + first * in.ld, 2 * in.ld, columns, weights_,
                    round_up(end - first, SQUARE), results, {bias, false, relu});
      for (int p = first; p < end; ++p) {
        const int y = p / columns, x = p % columns;
        if (x >= out.width) continue;
        const float* from = results + static_cast<long>(p - first) * padded;
        float* to = out.at(y * out.width + x) + column;
        for (int c = 0; c < outputs_; c += LANES) store_some(to + c, load(from + c), outputs_ - c);
      }
    }
  }

 private:
  int inputs_ = 0, outputs_ = 0;
  PackedPairs weights_;
};

}  // namespace densepath
