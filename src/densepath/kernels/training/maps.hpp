// What a training step reads and writes: maps of a batch, norms, sums.
//
// A map is rows of channels, a row a pixel, `ld` numbers apart, images one after the other. Behind
// the last of a map's memory there are SPARE numbers that may be read, never written.
#pragma once

#include <cstdint>
#include <vector>

#include "../bfloat16.hpp"

namespace densepath {

constexpr int SPARE = 16;

// Of floats; or of bfloat16, which are rounded as they are written and computed with as floats.
template <class Number>
struct MapsOf {
  Number* data;
  int32_t images, height, width, channels;
  int64_t ld;
  int64_t pixels() const { return static_cast<int64_t>(images) * height * width; }
  Number* at(int64_t pixel) const { return data + pixel * ld; }
};
using Maps = MapsOf<float>;

// BatchNorm and the ReLU behind it: relu(x · scale + shift); [channels] each. `centre` is the mean
// that the gradient's sums are taken about.
struct Norms {
  const float *scale, *shift, *centre;
};

// `values` with zeros up to a whole panel.
inline Floats padded(const float* values, int count) {
  Floats held = floats(round_up(count, PANEL));
  if (values) std::memcpy(held.get(), values, sizeof(float) * count);
  return held;
}

// The same, in memory that can be read by whole vectors.
struct PaddedNorm {
  Floats scale, shift, centre;
  PaddedNorm(const Norms& norm, int channels)
      : scale(padded(norm.scale, channels)),
        shift(padded(norm.shift, channels)),
        centre(padded(norm.centre, channels)) {}
  Vector apply(Vector x, int channel) const {
    return relu(x * load(scale.get() + channel) + load(shift.get() + channel));
  }
};

// A gradient that still lacks its BatchNorm's correction: data + constant + slope · y, where `y` is
// what that BatchNorm read. Without it, `constant` is null. If they are `halved`, y's numbers are
// of bfloat16 whatever the gradient's are. A 1×1's last outputs may stand elsewhere, in `more`, if
// those in `data` are whole vectors; such a gradient lacks nothing.
template <class Number>
struct GradientsOf {
  MapsOf<Number> data;
  const float *constant, *slope;
  MapsOf<Number> y;
  int32_t halved = 0;
  MapsOf<Number> more = {};
  int outputs() const { return data.channels + more.channels; }
};
using Gradients = GradientsOf<float>;

// What a backward pass sums up over all pixels, [channels] each, about the norm's centre.
struct Sums {
  double *gradient, *product;  // Σ g; Σ g · (x − centre)
};

// Means and sums of squares about them, channel by channel, of rows that come in pieces.
//
// Source: Chan, Golub and LeVeque, 1983, formulas 2.1; in double between pieces.
class Moments {
 public:
  explicit Moments(int channels)
      : channels_(channels), mean_(round_up(channels, LANES)), squares_(mean_.size()) {}

  // `count` rows, few enough that their float sums are exact to some digits. value(r, c) are LANES
  // channels of a row, from `c` on; each is asked for once.
  template <class Value>
  void add(int count, const Value& value) {
    const double total = static_cast<double>(count_ + count), share = count / total;
    const double weight = static_cast<double>(count_) * share;
    for (int c = 0; c < channels_; c += LANES) {
      double *mean = mean_.data() + c, *whole = squares_.data() + c;
      // The sums are about the mean so far, lest the squares lose digits.
      const Vector first = value(0, c);
      float near[LANES], sums[LANES], squared[LANES];
      for (int lane = 0; lane < LANES; ++lane) near[lane] = static_cast<float>(mean[lane]);
      if (!count_) store(near, first);
      const Vector origin = load(near);
      Vector sum = first - origin, squares = sum * sum;
      for (int r = 1; r < count; ++r) {
        const Vector from = value(r, c) - origin;
        sum += from;
        squares += from * from;
      }
      store(sums, sum);
      store(squared, squares);
      for (int lane = 0; lane < LANES; ++lane) {
        const double off = static_cast<double>(sums[lane]) / count;
        const double own = squared[lane] - off * sums[lane], apart = near[lane] + off - mean[lane];
        mean[lane] += apart * share;
        whole[lane] += (own < 0 ? 0 : own) + apart * apart * weight;
      }
    }
    count_ += count;
  }

  // Rows that are `ld` apart.
  template <class Number>
  void add(const Number* rows, int64_t ld, int count) {
    add(count, [&](int r, int c) { return load_some(rows + r * ld + c, channels_ - c); });
  }

  void add(const Moments& other) {
    if (!other.count_) return;
    const double total = static_cast<double>(count_ + other.count_), share = other.count_ / total;
    for (size_t c = 0; c < mean_.size(); ++c) {
      const double apart = other.mean_[c] - mean_[c];
      mean_[c] += apart * share;
      squares_[c] += other.squares_[c] + apart * apart * static_cast<double>(count_) * share;
    }
    count_ += other.count_;
  }

  // The mean and the variance over all rows, not the unbiased one.
  void write(double* mean, double* variance) const {
    for (int c = 0; c < channels_; ++c) {
      mean[c] = mean_[c];
      variance[c] = count_ ? squares_[c] / static_cast<double>(count_) : 0;
    }
  }

 private:
  int channels_;
  int64_t count_ = 0;
  std::vector<double> mean_, squares_;
};

// Where a layer's statistics go, if they are asked for.
struct Statistics {
  double *mean, *variance;  // null: not asked for
};

// The moments of all threads, in their order, into `statistics`; the first holds them all then.
inline void gather(std::vector<Moments>& threads, const Statistics& statistics) {
  for (size_t i = 1; i < threads.size(); ++i) threads[0].add(threads[i]);
  threads[0].write(statistics.mean, statistics.variance);
}

}  // namespace densepath
