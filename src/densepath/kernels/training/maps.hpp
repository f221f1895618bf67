// What a training step reads and writes: maps of a batch, norms, sums.
//
// A map is rows of channels, a row a pixel, `ld` floats apart, images one after the other. Behind
// the last of a map's memory there are SPARE floats that may be read, never written.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.hpp"

namespace densepath {

constexpr int SPARE = 16;

struct Maps {
  float* data;
  int32_t images, height, width, channels;
  int64_t ld;
  int64_t pixels() const { return static_cast<int64_t>(images) * height * width; }
  float* at(int64_t pixel) const { return data + pixel * ld; }
};

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
// what that BatchNorm read. Without it, `constant` is null.
struct Gradients {
  Maps data;
  const float *constant, *slope;
  Maps y;
};

// What a backward pass sums up over all pixels, [channels] each, about the norm's centre.
struct Sums {
  double *gradient, *product;  // Σ g; Σ g · (x − centre)
};

// Means and sums of squares about them, channel by channel, of rows that come in pieces.
//
// Source: Chan, Golub and LeVeque, 1983, formulas 2.1; in double between pieces.
class Moments {
 public:
  explicit Moments(int channels) : mean_(channels), squares_(channels) {}

  // `count` rows, `ld` apart; few enough that their float sums are exact to some digits.
  void add(const float* rows, int64_t ld, int count) {
    const int channels = static_cast<int>(mean_.size());
    for (int c = 0; c < channels; c += LANES) {
      // Beyond the last channel another thread may be writing.
      const int wanted = channels - c;
      Vector sum{}, squares{};
      for (int r = 0; r < count; ++r) sum += load_some(rows + r * ld + c, wanted);
      const Vector mean = sum / static_cast<float>(count);
      for (int r = 0; r < count; ++r) {
        const Vector from = load_some(rows + r * ld + c, wanted) - mean;
        squares += from * from;
      }
      for (int lane = 0; lane < LANES && c + lane < channels; ++lane)
        merge(c + lane, count, mean[lane], squares[lane]);
    }
    count_ += count;
  }

  void add(const Moments& other) {
    if (!other.count_) return;
    for (size_t c = 0; c < mean_.size(); ++c)
      merge(static_cast<int>(c), other.count_, other.mean_[c], other.squares_[c]);
    count_ += other.count_;
  }

  // The mean and the variance over all rows, not the unbiased one.
  void write(double* mean, double* variance) const {
    for (size_t c = 0; c < mean_.size(); ++c) {
      mean[c] = mean_[c];
      variance[c] = count_ ? squares_[c] / static_cast<double>(count_) : 0;
    }
  }

 private:
  void merge(int c, int64_t count, double mean, double squares) {
    const double total = static_cast<double>(count_ + count), apart = mean - mean_[c];
    mean_[c] += apart * static_cast<double>(count) / total;
    squares_[c] += squares + apart * apart * static_cast<double>(count_) * count / total;
  }

  int64_t count_ = 0;
  std::vector<double> mean_, squares_;
};

// Where a layer's statistics go, if they are asked for.
struct Statistics {
  double *mean, *variance;  // null: not asked for
};

}  // namespace densepath
