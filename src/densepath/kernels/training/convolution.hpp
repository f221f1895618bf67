// The 3×3 BN-ReLU-convolution of a training step, forward and backward.
#pragma once

#include "bands.hpp"
#include "direct.hpp"
#include "passes.hpp"
#include "squared_bands.hpp"
#include "squared_groups.hpp"
#include "tiled.hpp"

namespace densepath {

// The convolutions whose passes are plain, into floats.
template <class Number>
inline void convolve_plainly(const Shape& shape, const ActivationsOf<Number>& input,
                             const float* weight, const Maps& out, int threads) {
  if (is_tiled(shape, input.maps))
    tiled_forward(shape, input, weight, out, threads);
  else
    direct_forward(shape, input, weight, out, threads);
}

// Those into bfloat16, rounded when all are there.
template <class Number>
inline void convolve_plainly(const Shape& shape, const ActivationsOf<Number>& input,
                             const float* weight, const MapsOf<BFloat16>& out, int threads) {
  const int ld = round_up(out.channels, LANES);
  const Floats held = floats(static_cast<size_t>(out.pixels()) * ld + SPARE);
  const Maps whole{held.get(), out.images, out.height, out.width, out.channels, ld};
  convolve_plainly(shape, input, weight, whole, threads);
  Team::here().run(threads, [&](int index) {
    const Share share(out.pixels(), index, threads);
    for (int64_t p = share.low; p < share.high; ++p)
      for (int c = 0; c < out.channels; c += LANES)
        store_some(out.at(p) + c, load(whole.at(p) + c), out.channels - c);
  });
}

// relu(x · scale + shift), zero border of one pixel behind the ReLU, 3×3 with stride 1 or 2, in
// groups, into `out` [N, ⌈H / stride⌉, ⌈W / stride⌉, O]. `weight`: [O, C / groups, 3, 3].
template <class Number, class Made>
inline void convolve(const MapsOf<Number>& x, const Norms& norm, const float* weight, int stride,
                     int groups, const MapsOf<Made>& out, Statistics statistics, int threads) {
  const Shape shape(x, out.channels, groups, stride);
  const PaddedNorm held(norm, x.channels);
  const ActivationsOf<Number> input{x, held};
  std::vector<Moments> moments(threads, Moments(out.channels));
  const bool squared = is_squared<Number>(shape), banded = fits_slices(shape);
  std::vector<Moments>* wanted = statistics.mean ? &moments : nullptr;
  if (squared)
    squared_forward(shape, input, weight, out, wanted, threads);
  else if (is_in_planes<Number>(shape))  // which are banded, too
    planes_forward(shape, input, weight, out, wanted, threads);
  else if (banded)
    banded_forward(shape, input, weight, out, wanted, threads);
  else
    convolve_plainly(shape, input, weight, out, threads);
  if (!statistics.mean) return;
  if (squared || banded)
    gather(moments, statistics);
  else
    find_moments(out, statistics, threads);
}

// Of `convolve`: scale · g into `into`, of the shape of `x`, or added to it, where g is the
// gradient behind the ReLU; the weight's gradient; the sums over pixels.
template <class Number>
inline void convolve_backward(const MapsOf<Number>& x, const Norms& norm, const float* weight,
                              int stride, int groups, const Gradients& gradient,
                              const MapsOf<Number>& into, bool add, float* weight_gradient,
                              Sums sums, int threads) {
  const Shape shape(x, gradient.data.channels, groups, stride);
  const PaddedNorm held(norm, x.channels);
  const Corrected corrected(gradient);
  const ActivationsOf<Number> input{x, held};
  const MaskedOf<Number> masked{x, held, into, add};
  const auto pass = is_squared<Number>(shape)     ? squared_backward<Number>
                    : is_in_planes<Number>(shape) ? planes_backward<Number>
                    : is_tiled(shape, x)          ? tiled_backward<Number>
                    : fits_slices(shape)          ? banded_backward<Number>
                                                  : direct_backward<Number>;
  pass(shape, input, weight, corrected, masked, weight_gradient, sums, threads);
}

}  // namespace densepath
