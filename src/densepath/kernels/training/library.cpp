// The library that `training/blocks/native.py` calls: the operations of `operations.py` on maps.
#include <exception>
#include <string>

#include "../needs.hpp"
#include "convolution.hpp"
#include "passes.hpp"
#include "pointwise.hpp"
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

}  // namespace

extern "C" {

using densepath::Gradients;
using densepath::Maps;
using densepath::Norms;
using densepath::Statistics;
using densepath::Sums;
using densepath::Taking;

// The reason of the last failure in this thread.
const char* densepath_failure() { return failure.c_str(); }

// `parallel` is GNU OpenMP's `GOMP_parallel`.
void densepath_borrow(void* parallel) {
  densepath::borrowed() = reinterpret_cast<densepath::Parallel>(parallel);
}

int densepath_moments(const Maps* x, const Statistics* statistics, int threads) {
  return attempt([&] { densepath::find_moments(*x, *statistics, threads); });
}

int densepath_correct(const Maps* data, const float* constant, const float* slope, const Maps* x,
                      int threads) {
  return attempt([&] { densepath::correct(*data, constant, slope, *x, threads); });
}

int densepath_pointwise(const Maps* x, const Norms* norm, const float* weight, int taking,
                        const Maps* out, int add, const Statistics* statistics, int threads) {
  return attempt([&] {
    densepath::pointwise(*x, *norm, weight, static_cast<Taking>(taking), *out, add != 0,
                         *statistics, threads);
  });
}

int densepath_pointwise_backward(const Maps* x, const Norms* norm, const float* weight, int taking,
                                 const Gradients* gradient, const Maps* into, int add,
                                 float* weight_gradient, const Sums* sums, int threads) {
  return attempt([&] {
    densepath::pointwise_backward(*x, *norm, weight, static_cast<Taking>(taking), *gradient, *into,
                                  add != 0, weight_gradient, *sums, threads);
  });
}

int densepath_pool(const Maps* x, const Norms* norm, int top, int left, const Maps* out,
                   uint8_t* taken, int threads) {
  return attempt([&] { densepath::pool(*x, *norm, {top, left}, *out, taken, threads); });
}

int densepath_pool_backward(const Maps* x, const Norms* norm, int top, int left,
                            const uint8_t* taken, const Maps* gradient, const Maps* into,
                            const Sums* sums, int threads) {
  return attempt([&] {
    densepath::pool_backward(*x, *norm, {top, left}, taken, *gradient, *into, *sums, threads);
  });
}

int densepath_convolve(const Maps* x, const Norms* norm, const float* weight, int stride,
                       int groups, const Maps* out, const Statistics* statistics, int threads) {
  return attempt(
      [&] { densepath::convolve(*x, *norm, weight, stride, groups, *out, *statistics, threads); });
}

int densepath_convolve_backward(const Maps* x, const Norms* norm, const float* weight, int stride,
                                int groups, const Gradients* gradient, const Maps* into, int add,
                                float* weight_gradient, const Sums* sums, int threads) {
  return attempt([&] {
    densepath::convolve_backward(*x, *norm, weight, stride, groups, *gradient, *into, add != 0,
                                 weight_gradient, *sums, threads);
  });
}
}
