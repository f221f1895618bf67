// What the checks of the training kernels compare with: plain loops in double, and random maps.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../src/densepath/kernels/training/maps.hpp"

namespace reference {

using densepath::Maps;
using densepath::SPARE;
using Doubles = std::vector<double>;
using Values = std::vector<float>;

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int among(int low, int high) { return low + static_cast<int>(engine_() % (high - low + 1)); }
  int one_of(const std::vector<int>& choices) { return choices[engine_() % choices.size()]; }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(engine_() % 65536) / 65536;
  }
  Values values(size_t count, float low, float high) {
    Values made(count);
    for (float& value : made) value = uniform(low, high);
    return made;
  }

 private:
  std::mt19937 engine_;
};

// A map whose channels are the first of `ld`; what lies beside and behind them is NaN.
struct HeldMaps {
  Values memory;
  Maps maps;

  HeldMaps(int images, int height, int width, int channels, int ld)
      : memory(static_cast<size_t>(images) * height * width * ld + SPARE,
               std::numeric_limits<float>::quiet_NaN()),
        maps{memory.data(), images, height, width, channels, ld} {}
  HeldMaps(const HeldMaps&) = delete;

  template <class Make>
  void fill(const Make& make) {
    for (int64_t p = 0; p < maps.pixels(); ++p)
      for (int c = 0; c < maps.channels; ++c) maps.at(p)[c] = make(c);
  }

  // Whether nothing but the map's own channels has been written.
  bool is_whole() const {
    for (size_t k = 0; k < memory.size(); ++k) {
      const bool own = k % maps.ld < static_cast<size_t>(maps.channels) &&
                       k / maps.ld < static_cast<size_t>(maps.pixels());
      if (std::isnan(memory[k]) == own) return false;
    }
    return true;
  }

  Doubles doubles() const {
    Doubles made;
    for (int64_t p = 0; p < maps.pixels(); ++p)
      made.insert(made.end(), maps.at(p), maps.at(p) + maps.channels);
    return made;
  }
};

// A BatchNorm of random values, and values that it does not put near the ReLU's kink.
struct HeldNorm {
  Values scale, shift, centre;

  HeldNorm(Random& random, int channels)
      : scale(random.values(channels, 0.5f, 1.5f)),
        shift(random.values(channels, -0.5f, 0.5f)),
        centre(random.values(channels, -0.3f, 0.3f)) {
    for (float& value : scale)
      if (random.among(0, 3) == 0) value = -value;
  }
  densepath::Norms norms() const { return {scale.data(), shift.data(), centre.data()}; }

  float value(Random& random, int channel) const {
    for (;;) {
      const float x = random.uniform(-2, 2);
      if (std::abs(x * scale[channel] + shift[channel]) > 1e-3f) return x;
    }
  }
};

// relu(x · scale + shift), densely: [pixels, channels].
inline Doubles activate(const HeldMaps& x, const HeldNorm& norm) {
  Doubles made = x.doubles();
  for (size_t k = 0; k < made.size(); ++k) {
    const size_t c = k % x.maps.channels;
    made[k] = std::max(0.0, made[k] * norm.scale[c] + norm.shift[c]);
  }
  return made;
}

// The mean and the biased variance of each channel of dense [pixels, channels].
inline void moments(const Doubles& values, int channels, Doubles& mean, Doubles& variance) {
  mean.assign(channels, 0);
  variance.assign(channels, 0);
  const double count = static_cast<double>(values.size()) / channels;
  for (size_t k = 0; k < values.size(); ++k) mean[k % channels] += values[k] / count;
  for (size_t k = 0; k < values.size(); ++k) {
    const double apart = values[k] - mean[k % channels];
    variance[k % channels] += apart * apart / count;
  }
}

// A map of floats as one of the kernels' numbers, and back: nothing is written beside it.
template <class Number>
struct Handed {
  explicit Handed(const HeldMaps& of) : maps(of.maps) {}
  void back(HeldMaps&) const {}
  densepath::MapsOf<Number> maps;
};

template <>
struct Handed<densepath::BFloat16> {
  explicit Handed(const HeldMaps& of) : memory(of.memory.size() + densepath::LANES) {
    for (size_t k = 0; k < of.memory.size(); ++k)
      store_some(memory.data() + k, densepath::splat(of.memory[k]), 1);
    maps = {memory.data(), of.maps.images,   of.maps.height,
            of.maps.width, of.maps.channels, of.maps.ld};
  }
  void back(HeldMaps& to) const {
    for (size_t k = 0; k < to.memory.size(); ++k) to.memory[k] = load(memory.data() + k)[0];
  }
  std::vector<densepath::BFloat16> memory;
  densepath::MapsOf<densepath::BFloat16> maps;
};

// What a gradient lacks of its BatchNorm is added: data + constant + slope · y.
inline Doubles correct(const HeldMaps& data, const HeldMaps& y, const Values& constant,
                       const Values& slope) {
  Doubles made = data.doubles();
  const Doubles outputs = y.doubles();
  for (size_t k = 0; k < made.size(); ++k)
    made[k] += constant[k % constant.size()] + slope[k % slope.size()] * outputs[k];
  return made;
}

// The backward pass of BN-ReLU: `behind` is the gradient behind the ReLU, densely.
struct Backward {
  Doubles into, gradient, product;
  // How large sums of such terms are if their signs are chance; one of a single channel may cancel.
  double gradient_size = 0, product_size = 0;

  Backward(const HeldMaps& x, const HeldNorm& norm, const Doubles& behind) {
    const int channels = x.maps.channels;
    const Doubles values = x.doubles();
    into.assign(behind.size(), 0);
    gradient.assign(channels, 0);
    product.assign(channels, 0);
    Doubles gradient_squares(channels), product_squares(channels);
    for (size_t k = 0; k < behind.size(); ++k) {
      const size_t c = k % channels;
      if (values[k] * norm.scale[c] + norm.shift[c] <= 0) continue;
      into[k] = norm.scale[c] * behind[k];
      const double term = behind[k] * (values[k] - norm.centre[c]);
      gradient[c] += behind[k];
      product[c] += term;
      gradient_squares[c] += behind[k] * behind[k];
      product_squares[c] += term * term;
      gradient_size = std::max(gradient_size, std::sqrt(gradient_squares[c]));
      product_size = std::max(product_size, std::sqrt(product_squares[c]));
    }
  }
};

constexpr double BOUND = 2e-5;  // of an error in float32

// The largest error of a run, relative to the largest value of what it is of.
class Errors {
 public:
  explicit Errors(double bound = BOUND) : bound_(bound) {}

  // `largest`: what an error is relative to, where no value is larger.
  template <class Got>
  void compare(const std::string& of, const Got& got, const Doubles& wanted,
               double largest = 1e-3) {
    double apart = 0;
    for (const double value : wanted) largest = std::max(largest, std::abs(value));
    bool finite = got.size() == wanted.size();
    for (size_t k = 0; finite && k < wanted.size(); ++k) {
      finite = std::isfinite(got[k]);
      apart = std::max(apart, std::abs(got[k] - wanted[k]));
    }
    const double error = finite ? apart / largest : std::numeric_limits<double>::infinity();
    worst_ = std::max(worst_, error);
    if (error <= bound_) return;
    failed_ = true;
    std::printf("%s: error %g\n", of.c_str(), error);
  }
  void require(const std::string& of, bool holds) {
    if (holds) return;
    failed_ = true;
    std::printf("%s\n", of.c_str());
  }

  // The program's exit status.
  int report(const char* of) const {
    std::printf("%s: largest relative error %.2g\n", of, worst_);
    return failed_ ? 1 : 0;
  }

 private:
  double bound_, worst_ = 0;
  bool failed_ = false;
};

}  // namespace reference
