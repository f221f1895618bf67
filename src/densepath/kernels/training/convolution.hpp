// The 3×3 BN-ReLU-convolution of a training step, forward and backward.
#pragma once

#include "bands.hpp"
#include "direct.hpp"
#include "passes.hpp"
#include "squared_bands.hpp"
#include "squared_groups.hpp"
#include "tiled.hpp"

namespace densepath {

// relu(x · scale + shift), zero border of one pixel behind the ReLU, 3×3 with stride 1 or 2, in
// groups, into `out` [N, ⌈H / stride⌉, ⌈W / stride⌉, O]. `weight`: [O, C / groups, 3, 3].
template <class Number>
inline void convolve(const MapsOf<Number>& x, const Norms& norm, const float* weight, int stride,
                     int groups, const Maps& out, Statistics statistics, int threads) {
  const Shape shape(x, out.channels, groups, stride);
  const PaddedNorm held(norm, x.channels);
  const ActivationsOf<Number> input{x, held};
  std::vector<Moments> moments(threads, Moments(out.channels));
  const bool squared = is_squared<Number>(shape), in_planes = is_in_planes<Number>(shape);
  const bool banded = Slices::fit(shape);
  std::vector<Moments>* wanted = statistics.mean ? &moments : nullptr;
  if (squared)
    squared_forward(shape, input, weight, out, wanted, threads);
  else if (in_planes)
    planes_forward(shape, input, weight, out, wanted, threads);
  else if (is_tiled(shape, x))
    tiled_forward(shape, input, weight, out, threads);
  else if (banded)
    banded_forward(shape, input, weight, out, wanted, threads);
  else
    direct_forward(shape, input, weight, out, threads);
  if (!statistics.mean) return;
  if (squared || banded)  // planes are, too
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
                    : Slices::fit(shape)          ? banded_backward<Number>
                                                  : direct_backward<Number>;
  pass(shape, input, weight, corrected, masked, weight_gradient, sums, threads);
}

}  // namespace densepath
