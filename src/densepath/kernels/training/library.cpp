// The library that `training/blocks/library.py` opens: the operations of `operations.py` on maps.
#include <exception>
#include <string>

#include "../needs.hpp"
#include "convolution.hpp"
#include "norms.hpp"
#include "passes.hpp"
#include "pointwise_backward.hpp"
#include "pool.hpp"

namespace {

thread_local std::string failure;

// 0, or 1 when `work` failed.
template <class Work>
int attempt(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    failure = error.what();
    return 1;
  }
}

template <class Number>
const densepath::MapsOf<Number>& as(const void* maps) {
  return *static_cast<const densepath::MapsOf<Number>*>(maps);
}

// `work` on a number of the type of a map.
template <class Work>
void with_number(bool halved, const Work& work) {
  if (halved)
    work(densepath::BFloat16{});
  else
    work(0.0f);
}

// `work` on weights and a number of the map that is read; of bfloat16 only for products of it.
template <class Work>
void with_product(bool rounded, bool halved, const Work& work) {
  if (halved && !rounded)
    throw std::logic_error("a map of bfloat16 is read by products of bfloat16 alone");
  if (halved)
    work(densepath::PackedPairs(), densepath::BFloat16{});
  else if (rounded)
    work(densepath::PackedPairs(), 0.0f);
  else
    work(densepath::Packed(), 0.0f);
}

}  // namespace

extern "C" {

using densepath::Corrections;
using densepath::Gradients;
using densepath::GradientsOf;
using densepath::Maps;
using densepath::Norms;
using densepath::NormsMade;
using densepath::Statistics;
using densepath::Sums;
using densepath::Taking;

// The reason of the last failure in this thread.
const char* densepath_failure() { return failure.c_str(); }

// `parallel` is GNU OpenMP's `GOMP_parallel`.
void densepath_borrow(void* parallel) {
  densepath::borrowed() = reinterpret_cast<densepath::Parallel>(parallel);
}

// Maps that are pointers to nothing in particular are of bfloat16 if they are `halved`.

int densepath_moments(const void* x, int halved, const Statistics* statistics, int threads) {
  return attempt([&] {
    with_number(halved, [&](auto number) {
      densepath::find_moments(as<decltype(number)>(x), *statistics, threads);
    });
  });
}

int densepath_correct(const void* data, int halved, const float* constant, const float* slope,
                      const void* x, int x_halved, int threads) {
  return attempt([&] {
    with_number(halved, [&](auto number) {
      with_number(x_halved, [&](auto read) {
        densepath::correct(as<decltype(number)>(data), constant, slope, as<decltype(read)>(x),
                           threads);
      });
    });
  });
}

int densepath_has_bfloat16() { return densepath::HAS_BFLOAT16; }
int densepath_has_amx() { return densepath::may_use_squares(); }

// `rounded`: products of bfloat16, as are all of maps of it.
int densepath_pointwise(const void* x, int x_halved, const Norms* norm, const float* weight,
                        int taking, int rounded, int halved, const void* out, int add,
                        const Statistics* statistics, int threads) {
  return attempt([&] {
    with_product(rounded, x_halved, [&](auto weights, auto read) {
      with_number(halved, [&](auto number) {
        densepath::pointwise<decltype(weights)>(
            as<decltype(read)>(x), *norm, weight, static_cast<Taking>(taking),
            as<decltype(number)>(out), add != 0, *statistics, threads);
      });
    });
  });
}

int densepath_pointwise_backward(const void* x, int x_halved, const Norms* norm,
                                 const float* weight, int taking, int rounded, int halved,
                                 const void* gradient, const Maps* into, int add,
                                 float* weight_gradient, const Sums* sums, int threads) {
  return attempt([&] {
    with_product(rounded, x_halved, [&](auto weights, auto read) {
      with_number(halved, [&](auto number) {
        densepath::pointwise_backward<decltype(weights)>(
            as<decltype(read)>(x), *norm, weight, static_cast<Taking>(taking),
            *static_cast<const GradientsOf<decltype(number)>*>(gradient), *into, add != 0,
            weight_gradient, *sums, threads);
      });
    });
  });
}

int densepath_pool(const void* x, int halved, const Norms* norm, int top, int left, const Maps* out,
                   uint8_t* taken, int threads) {
  return attempt([&] {
    with_number(halved, [&](auto number) {
      densepath::pool(as<decltype(number)>(x), *norm, {top, left}, *out, taken, threads);
    });
  });
}

int densepath_pool_backward(const void* x, int halved, const Norms* norm, int top, int left,
                            const uint8_t* taken, const Maps* gradient, const void* into,
                            const Sums* sums, int threads) {
  return attempt([&] {
    with_number(halved, [&](auto number) {
      using Number = decltype(number);
      densepath::pool_backward(as<Number>(x), *norm, {top, left}, taken, *gradient,
                               as<Number>(into), *sums, threads);
    });
  });
}

int densepath_convolve(const void* x, int x_halved, const Norms* norm, const float* weight,
                       int stride, int groups, int halved, const void* out,
                       const Statistics* statistics, int threads) {
  return attempt([&] {
    with_number(x_halved, [&](auto read) {
      with_number(halved, [&](auto number) {
        densepath::convolve(as<decltype(read)>(x), *norm, weight, stride, groups,
                            as<decltype(number)>(out), *statistics, threads);
      });
    });
  });
}

int densepath_convolve_backward(const void* x, int halved, const Norms* norm, const float* weight,
                                int stride, int groups, const Gradients* gradient, const void* into,
                                int add, float* weight_gradient, const Sums* sums, int threads) {
  return attempt([&] {
    with_number(halved, [&](auto number) {
      using Number = decltype(number);
      densepath::convolve_backward(as<Number>(x), *norm, weight, stride, groups, *gradient,
                                   as<Number>(into), add != 0, weight_gradient, *sums, threads);
    });
  });
}

// The functions of a BatchNorm's own vectors, which one thread computes: `norms.hpp`.

int densepath_factors(const Statistics* found, int channels, const float* weight, const float* bias,
                      double eps, const NormsMade* norm, double* inverse, double* scale, int) {
  return attempt(
      [&] { densepath::make_factors(*found, channels, weight, bias, eps, *norm, inverse, scale); });
}

int densepath_follow(const Statistics* found, int channels, double pixels, double share,
                     float* mean, float* variance, int) {
  return attempt([&] { densepath::follow(*found, channels, pixels, share, mean, variance); });
}

int densepath_norm_gradients(const Sums* sums, int channels, const double* inverse, float* weight,
                             float* bias, int) {
  return attempt([&] { densepath::norm_gradients(*sums, channels, inverse, weight, bias); });
}

int densepath_correction(const Sums* sums, int channels, double pixels, const double* mean,
                         const double* inverse, const double* scale, const Corrections* into, int) {
  return attempt(
      [&] { densepath::add_correction(*sums, channels, pixels, {mean, inverse, scale}, *into); });
}
}
