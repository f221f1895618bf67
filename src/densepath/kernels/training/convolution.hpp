// The 3×3 BN-ReLU-convolution of a training step, forward and backward.
#pragma once

#include "bands.hpp"
#include "direct.hpp"
#include "tiled.hpp"

namespace densepath {

// A thread's moments of its share of a map.
inline void add_moments(const Maps& maps, Share share, Moments& moments) {
  constexpr int64_t ROWS_OF_MOMENTS = 256;
  for (int64_t p = share.low; p < share.high; p += ROWS_OF_MOMENTS)
    moments.add(maps.at(p), maps.ld,
                static_cast<int>(std::min<int64_t>(ROWS_OF_MOMENTS, share.high - p)));
}

// relu(x · scale + shift), zero border of one pixel behind the ReLU, 3×3 with stride 1 or 2, in
// groups, into `out` [N, ⌈H / stride⌉, ⌈W / stride⌉, O]. `weight`: [O, C / groups, 3, 3].
inline void convolve(const Maps& x, const Norms& norm, const float* weight, int stride, int groups,
                     const Maps& out, Statistics statistics, int threads) {
  const Shape shape(x, out.channels, groups, stride);
  const PaddedNorm held(norm, x.channels);
  const Activations input{x, held};
  std::vector<Moments> moments(threads, Moments(out.channels));
  const bool banded = Slices::fit(shape);
  if (is_tiled(shape, x))
    tiled_forward(shape, input, weight, out, threads);
  else if (banded)
    banded_forward(shape, input, weight, out, statistics.mean ? &moments : nullptr, threads);
  else
    direct_forward(shape, input, weight, out, threads);
  if (!statistics.mean) return;
  if (!banded)
    Team::here().run(threads, [&](int index) {
      add_moments(out, Share(out.pixels(), index, threads), moments[index]);
    });
  for (int index = 1; index < threads; ++index) moments[0].add(moments[index]);
  moments[0].write(statistics.mean, statistics.variance);
}

// Of `convolve`: scale · g into `into`, of the shape of `x`, or added to it, where g is the
// gradient behind the ReLU; the weight's gradient; the sums over pixels.
inline void convolve_backward(const Maps& x, const Norms& norm, const float* weight, int stride,
                              int groups, const Gradients& gradient, const Maps& into, bool add,
                              float* weight_gradient, Sums sums, int threads) {
  const Shape shape(x, gradient.data.channels, groups, stride);
  const PaddedNorm held(norm, x.channels);
  const Corrected corrected(gradient);
  const Activations input{x, held};
  const Masked masked{x, held, into, add};
  const auto pass = is_tiled(shape, x)   ? tiled_backward
                    : Slices::fit(shape) ? banded_backward
                                         : direct_backward;
  pass(shape, input, weight, corrected, masked, weight_gradient, sums, threads);
}

}  // namespace densepath
