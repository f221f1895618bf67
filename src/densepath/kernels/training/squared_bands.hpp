// 3×3 convolutions of a training step in AMX's registers, both ways, in bands of some rows, whose
// pixels stand in one line; those in groups are in squared_groups.hpp.
#pragma once

#include <vector>

#include "line.hpp"
#include "scratch.hpp"

namespace densepath {

// Whether `squared_forward` and `squared_backward` are for such a convolution.
template <class Number>
inline bool is_squared(const Shape& shape) {
  return std::is_same_v<Number, BFloat16> && multiplies_taps(shape.groups, shape.stride);
}

// The rows of all images in even bands.
struct Lines {
  int bands, rows;  // of an image; of a band
  explicit Lines(const Shape& shape) {
    constexpr int PLACES = 768;  // so that a band of some operands stays in the second-level cache
    const int most = std::max(1, PLACES / (shape.width + 2));
    bands = (shape.height + most - 1) / most;
    rows = (shape.height + bands - 1) / bands;
  }
  Band band(int64_t number, const Shape& shape) const {
    return band_of(number, bands, rows, shape.height);
  }
};

// Of [outputs, inputs, 3, 3]; or, `turned`, as the gradients of the inputs are made from those of
// the outputs.
inline PackedPairs squared_weights(const Shape& shape, const float* weight, bool turned) {
  const auto at = [&](int tap, int i, int o) {
    return weight[(static_cast<size_t>(o) * shape.inputs + i) * 9 + tap];
  };
  if (!turned) return pack_taps(shape.inputs, shape.outputs, at);
  return pack_taps(shape.outputs, shape.inputs,
                   [&](int tap, int o, int i) { return at(8 - tap, i, o); });
}

template <class Number, class Made>
inline void squared_forward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const MapsOf<Made>& out,
                            std::vector<Moments>* moments, int threads) {
  const Lines lines(shape);
  const Line line(lines.rows, shape.width);
  const PackedPairs weights = squared_weights(shape, weight, false);
  Team::here().run(threads, [&](int index) {
    const HalfPlaces entered(line, shape.inputs);
    const Scratch results(static_cast<size_t>(line.squared) * weights.padded);
    const Share share(static_cast<int64_t>(out.images) * lines.bands, index, threads);
    for (int64_t b = share.low; b < share.high; ++b) {
      const Band band = lines.band(b, shape);
      if (band.high == band.low) continue;
      entered.read(input, {0, shape.inputs}, band.image, band.low, band.high, shape.height, 1);
      multiply_taps(entered.at(0), entered.apart, line.columns, weights, line.squared,
                    results.get(), {});
      each_row(line, band.image, band.low, band.high, shape.height, shape.width,
               [&](int64_t pixel, long place) {
                 const float* from = results.get() + place * weights.padded;
                 for (int x = 0; x < shape.width; ++x)
                   for (int c = 0; c < shape.outputs; c += LANES)
                     store_some(out.at(pixel + x) + c, load(from + x * weights.padded + c),
                                shape.outputs - c);
               });
      if (!moments) continue;
      const int64_t first = static_cast<int64_t>(band.image) * shape.height + band.low;
      (*moments)[index].add(out.at(first * shape.width), out.ld,
                            (band.high - band.low) * shape.width);
    }
  });
}

template <class Number>
inline void squared_backward(const Shape& shape, const ActivationsOf<Number>& input,
                             const float* weight, const Corrected& gradient,
                             const MaskedOf<Number>& masked, float* weight_gradient,
                             const Sums& sums, int threads) {
  const Lines lines(shape);
  const Line line(lines.rows, shape.width);
  const PackedPairs weights = squared_weights(shape, weight, true);
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  Team::here().run(threads, [&](int index) {
    totals[index] = Totals(shape.inputs);
    parts[index] = floats(LineProducts::sums(shape.inputs, shape.outputs));
    const LineProducts products(line, shape.inputs, shape.outputs);
    const Share share(static_cast<int64_t>(input.maps.images) * lines.bands, index, threads);
    for (int64_t b = share.low; b < share.high; ++b) {
      const auto [image, low, high] = lines.band(b, shape);
      if (high == low) continue;
      products.entered.read(input, {0, shape.inputs}, image, low, high, shape.height, 1);
      products.gradients.read(gradient, {0, shape.outputs}, image, low, high, shape.height, 1);
      products.add_weights(parts[index].get());
      leave_rows(line, products.multiply(weights), weights.padded, {0, shape.inputs}, image, low,
                 high, masked, totals[index]);
      totals[index].fold();
    }
  });
  combine(totals, sums, shape.inputs);
  return_sums(
      parts, shape.outputs, shape.inputs, threads,
      [&](int tap, int i, int o) {
        return LineProducts::sum(shape.inputs, shape.outputs, tap, i, o);
      },
      weight_gradient);
}

}  // namespace densepath
