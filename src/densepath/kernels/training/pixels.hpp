// What a convolution of a training step reads at a pixel, and what its backward pass leaves there.
#pragma once

#include <vector>

#include "../lanes.hpp"
#include "maps.hpp"

namespace densepath {

// A pixel's channels from `c` on, of which `left` are the map's: what stands beside them is others'
// and may be written at the same time.
template <class Number>
inline Vector load_own(const Number* pixel, int c, int left) {
  return load_some(pixel + c, left);
}

// relu(x · scale + shift) of a map's pixels.
template <class Number>
struct ActivationsOf {
  const MapsOf<Number>& maps;
  const PaddedNorm& norm;
  // Of a pixel, the channels from `c` on, of which `left` are the map's.
  auto reader(int c, int left) const {
    const Vector scale = load(norm.scale.get() + c), shift = load(norm.shift.get() + c);
    const Number* data = maps.data;
    return [=, ld = maps.ld](int64_t pixel) {
      return relu(load_own(data + pixel * ld, c, left) * scale + shift);
    };
  }
};
using Activations = ActivationsOf<float>;

// A gradient with its correction, if it lacks one.
struct Corrected {
  const Maps& maps;
  const Maps& y;
  const bool halved;  // y's numbers are of bfloat16
  Floats constant, slope;
  explicit Corrected(const Gradients& gradient)
      : maps(gradient.data),
        y(gradient.y),
        halved(gradient.halved),
        constant(gradient.constant ? padded(gradient.constant, maps.channels) : nullptr),
        slope(gradient.constant ? padded(gradient.slope, maps.channels) : nullptr) {}
  auto reader(int c, int left) const {
    const bool whole = !constant;
    const Vector constants = whole ? Vector{} : load(constant.get() + c);
    const Vector slopes = whole ? Vector{} : load(slope.get() + c);
    const float *from = maps.data, *output = y.data;
    const BFloat16* half = halved_outputs().data;
    return [=, ld = maps.ld, y_ld = y.ld, halved = halved](int64_t pixel) {
      const Vector data = load_own(from + pixel * ld, c, left);
      if (whole) return data;
      const Vector read = halved ? load_own(half + pixel * y_ld, c, left)
                                 : load_own(output + pixel * y_ld, c, left);
      return data + constants + slopes * read;
    };
  }
  MapsOf<BFloat16> halved_outputs() const {
    return {reinterpret_cast<BFloat16*>(y.data), y.images, y.height, y.width, y.channels, y.ld};
  }
};

// One pixel's channels [first, first + count), or zeros outside of the map. Up to a vector's width
// more is written.
template <class Source>
inline void read_pixel(const Source& source, int image, int y, int x, int first, int count,
                       float* to) {
  const auto& maps = source.maps;
  if (y < 0 || y >= maps.height || x < 0 || x >= maps.width) {
    for (int k = 0; k < count; k += LANES) store(to + k, Vector{});
    return;
  }
  const int64_t pixel = (static_cast<int64_t>(image) * maps.height + y) * maps.width + x;
  for (int k = 0; k < count; k += LANES)
    store(to + k, source.reader(first + k, maps.channels - first - k)(pixel));
}

// A thread's sums over pixels: some of them in float, and then in double.
class Totals {
 public:
  explicit Totals(int channels = 0)
      : apart_(round_up(channels, LANES)), recent_(2 * apart_ + LANES), whole_(2 * apart_) {}

  // Of channels from `c` on, of which `left` are wanted.
  void add(int c, int left, Vector gradient, Vector product) {
    float *one = recent_.data() + c, *other = one + apart_;
    store_some(one, load(one) + gradient, left);
    store_some(other, load(other) + product, left);
  }

  // Once in some hundred pixels.
  void fold() {
    for (size_t k = 0; k < whole_.size(); ++k) {
      whole_[k] += recent_[k];
      recent_[k] = 0;
    }
  }

  void add_to(const Sums& sums, int channels) const {
    for (int c = 0; c < channels; ++c) {
      sums.gradient[c] += whole_[c];
      sums.product[c] += whole_[apart_ + c];
    }
  }

 private:
  int apart_;
  std::vector<float> recent_;
  std::vector<double> whole_;
};

// All bits of the lanes below `count`, none of the others.
inline Places first_lanes(int count) {
  Places lanes{};
  for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane < count ? -1 : 0;
  return lanes;
}

// Where the gradient behind a ReLU goes: where the ReLU let something through, times the norm's
// scale, it is written to `into` or added; and summed up.
template <class Number>
struct MaskedOf {
  const MapsOf<Number>& x;
  const PaddedNorm& norm;
  const MapsOf<Number>& into;
  bool add;

  // write(pixel, behind, gradient, product): of a pixel's channels from `c` on those of `lanes`; of
  // the others zeros. The last two are the sums.
  auto writer(int c, Places lanes) const {
    const int left = x.channels - c;
    const Number* from = x.data + c;
    Number* to = into.data + c;
    const Vector scale = load(norm.scale.get() + c), shift = load(norm.shift.get() + c);
    const Vector centre = load(norm.centre.get() + c);
    return [=, from_ld = x.ld, to_ld = into.ld, add = add](int64_t pixel, Vector behind,
                                                           Vector& gradient, Vector& product) {
      const Vector value = load_own(from + pixel * from_ld, 0, left);
      const Vector before = value * scale + shift;
      const Vector g = (Vector)((Places)behind & (before > 0.0f) & lanes);
      gradient += g;
      product += g * (value - centre);
      Number* here = to + pixel * to_ld;
      store_some(here, add ? g * scale + load_some(here, left) : g * scale, left);
    };
  }
};
using Masked = MaskedOf<float>;

// `sums` of all threads, in their order.
inline void combine(const std::vector<Totals>& threads, const Sums& sums, int channels) {
  std::fill_n(sums.gradient, channels, 0.0);
  std::fill_n(sums.product, channels, 0.0);
  for (const Totals& totals : threads) totals.add_to(sums, channels);
}

}  // namespace densepath
