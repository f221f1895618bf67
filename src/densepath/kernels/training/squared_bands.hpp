// 3×3 convolutions of a training step in AMX's registers, both ways, in bands of some rows, whose
// pixels stand in one line; see ../taps.hpp.
#pragma once

#include <vector>

#include "../taps.hpp"
#include "pixels.hpp"
#include "scratch.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

// Whether `squared_forward` and `squared_backward` are for such a convolution.
template <class Number>
inline bool is_squared(const Shape& shape) {
  return std::is_same_v<Number, BFloat16> && multiplies_taps(shape.groups, shape.stride);
}

// The rows of all images in even bands, as places in a line.
struct Line {
  const Shape& shape;
  int bands, rows, columns;  // of an image; of a band; of a row with its zeros
  int squared;               // places that results are made for: a band's in whole steps
  explicit Line(const Shape& shape_) : shape(shape_), columns(shape.width + 2) {
    constexpr int PLACES = 768;  // so that a band of some operands stays in the second-level cache
    const int most = std::max(1, PLACES / columns);
    bands = (shape.height + most - 1) / most;
    rows = (shape.height + bands - 1) / bands;
    squared = round_up(rows * columns, SQUARE_DEPTH);
  }
  // Of a band with a row above and one below, and what a product reads behind them.
  long all() const { return squared + 2 * columns + SQUARE_DEPTH; }
  long tap(int number) const { return tap_place(number, columns); }
  Band band(int64_t number) const { return band_of(number, bands, rows, shape.height); }
};

// Numbers of bfloat16 of a band's places: [places, channels in whole steps], zeros where there is
// nothing.
class HalfPlaces {
 public:
  HalfPlaces(const Line& line, int channels)
      : apart(tap_inputs(channels)), line_(line), data_(floats(line.all() * apart / 2)) {}

  BFloat16* at(long place) const {
    return reinterpret_cast<BFloat16*>(data_.get()) + place * apart;
  }

  // The rows of a band, the one above and the one below it.
  template <class Source>
  void read(const Source& source, const Band& band) const {
    const int width = line_.shape.width, height = line_.shape.height;
    for (int row = 0; row < line_.rows + 2; ++row) {
      const int y = band.low - 1 + row;
      BFloat16* to = at(static_cast<long>(row) * line_.columns + 1);
      if (y < 0 || y >= height || y > band.high) {
        std::memset(to, 0, sizeof(BFloat16) * width * apart);
        continue;
      }
      const int64_t first = (static_cast<int64_t>(band.image) * height + y) * width;
      for (int c = 0; c < source.maps.channels; c += LANES) {
        const auto read = source.reader(c, source.maps.channels - c);
        for (int x = 0; x < width; ++x) store(to + x * apart + c, read(first + x));
      }
    }
  }

  const long apart;

 private:
  const Line& line_;
  const Floats data_;
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

// results [places, weights.padded] of a band.
inline void multiply_places(const Line& line, const HalfPlaces& from, const PackedPairs& weights,
                            float* results) {
  multiply_taps(from.at(0), from.apart, line.columns, weights, line.squared, results, {});
}

// visit(pixel, place) of the first pixel of each of a band's rows.
template <class Visit>
inline void each_row(const Line& line, const Band& band, const Visit& visit) {
  for (int y = band.low; y < band.high; ++y)
    visit((static_cast<int64_t>(band.image) * line.shape.height + y) * line.shape.width,
          static_cast<long>(y - band.low) * line.columns);
}

template <class Number>
inline void squared_forward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const Maps& out, std::vector<Moments>* moments,
                            int threads) {
  const Line line(shape);
  const PackedPairs weights = squared_weights(shape, weight, false);
  Team::here().run(threads, [&](int index) {
    const HalfPlaces entered(line, shape.inputs);
    const Scratch results(static_cast<size_t>(line.squared) * weights.padded);
    const Share share(static_cast<int64_t>(out.images) * line.bands, index, threads);
    for (int64_t b = share.low; b < share.high; ++b) {
      const Band band = line.band(b);
      entered.read(input, band);
      multiply_places(line, entered, weights, results.get());
      each_row(line, band, [&](int64_t pixel, long place) {
        const float* from = results.get() + place * weights.padded;
        for (int x = 0; x < shape.width; ++x)
          for (int c = 0; c < shape.outputs; c += LANES)
            store_some(out.at(pixel + x) + c, load(from + x * weights.padded + c),
                       shape.outputs - c);
      });
      if (!moments || band.high == band.low) continue;
      const int64_t first = static_cast<int64_t>(band.image) * shape.height + band.low;
      (*moments)[index].add(out.at(first * shape.width), out.ld,
                            (band.high - band.low) * shape.width);
    }
  });
}

// A thread's part of the backward pass.
class SquaredBackward {
 public:
  SquaredBackward(const Line& line, const PackedPairs& weights)
      : line_(line),
        weights_(weights),
        inputs_(round_up(line.shape.inputs, SQUARE)),
        outputs_(round_up(line.shape.outputs, SQUARE)),
        turned_apart_(round_up(static_cast<int>(line.all()), SQUARE_DEPTH)),
        entered_(line, line.shape.inputs),
        gradients_(line, line.shape.outputs),
        turned_(floats(static_cast<size_t>(inputs_) * turned_apart_ / 2)),
        pairs_(floats(static_cast<size_t>(line.squared) / 2 * outputs_)),
        results_(floats(static_cast<size_t>(line.squared) * weights.padded)),
        sums(floats(static_cast<size_t>(9) * inputs_ * outputs_)) {}

  template <class Number>
  void run(const ActivationsOf<Number>& input, const Corrected& gradient,
           const MaskedOf<Number>& masked, Share share, Totals& totals) {
    for (int64_t b = share.low; b < share.high; ++b) {
      const Band band = line_.band(b);
      entered_.read(input, band);
      gradients_.read(gradient, band);
      turn_entered();
      pair_gradients(band);
      for (int tap = 0; tap < 9; ++tap) add_weights(tap);
      multiply_places(line_, gradients_, weights_, results_.get());
      leave(band, masked, totals);
      totals.fold();
    }
  }

  // Σ of a tap [inputs, outputs] of a pair of channels.
  float sum(int tap, int i, int o) const {
    return sums[(static_cast<size_t>(tap) * inputs_ + i) * outputs_ + o];
  }

 private:
  void turn_entered() const {
    for (int c = 0; c < inputs_; c += SQUARE)
      for (long place = 0; place < line_.all() / SQUARE_DEPTH * SQUARE_DEPTH; place += SQUARE_DEPTH)
        turn_pairs(entered_.at(place) + c, entered_.apart,
                   turned_.get() + (c * turned_apart_ + place) / 2, turned_apart_ / 2);
  }

  // The gradients of the band's own places in pairs, in panels; zeros for all others.
  void pair_gradients(const Band& band) const {
    std::memset(pairs_.get(), 0, sizeof(float) * line_.squared / 2 * outputs_);
    each_row(line_, band, [&](int64_t, long place) {
      for (long p = place; p < place + line_.shape.width; ++p)
        for (int o = 0; o < outputs_; o += LANES) {
          const int width = std::min(PANEL, outputs_ - o / PANEL * PANEL);
          float* panel = pairs_.get() + o / PANEL * PANEL * (line_.squared / 2);
          const Vector value = load(gradients_.at(p + line_.tap(4)) + o);
          Pairs& held = *reinterpret_cast<Pairs*>(panel + p / 2 * width + o % PANEL);
          held |= p % 2 ? (Pairs)value : (Pairs)value >> 16;
        }
    });
  }

  void add_weights(int tap) const {
    const char* left = reinterpret_cast<const char*>(turned_.get());
    for (int o = 0; o < outputs_; o += PANEL)
      multiply_by_squares(SquareLeft{left + line_.tap(tap) * sizeof(BFloat16),
                                     turned_apart_ * static_cast<long>(sizeof(BFloat16)), nullptr,
                                     1, line_.squared / SQUARE_DEPTH},
                          inputs_, pairs_.get() + o * (line_.squared / 2),
                          std::min(PANEL, outputs_ - o),
                          sums.get() + static_cast<size_t>(tap) * inputs_ * outputs_ + o, outputs_,
                          {nullptr, true, false}, PANEL, Nothing());
  }

  template <class Number>
  void leave(const Band& band, const MaskedOf<Number>& masked, Totals& totals) const {
    const int channels = line_.shape.inputs;
    for (int c = 0; c < channels; c += LANES) {
      const auto write = masked.writer(c, first_lanes(channels - c));
      Vector gradient{}, product{};
      each_row(line_, band, [&](int64_t pixel, long place) {
        const float* from = results_.get() + place * weights_.padded + c;
        for (int x = 0; x < line_.shape.width; ++x)
          write(pixel + x, load(from + x * weights_.padded), gradient, product);
      });
      totals.add(c, channels - c, gradient, product);
    }
  }

  const Line& line_;
  const PackedPairs& weights_;
  const int inputs_, outputs_;
  const long turned_apart_;
  const HalfPlaces entered_, gradients_;
  const Floats turned_, pairs_, results_;

 public:
  const Floats sums;  // [9, inputs, outputs], in whole squares
};

template <class Number>
inline void squared_backward(const Shape& shape, const ActivationsOf<Number>& input,
                             const float* weight, const Corrected& gradient,
                             const MaskedOf<Number>& masked, float* weight_gradient,
                             const Sums& sums, int threads) {
  const Line line(shape);
  const PackedPairs weights = squared_weights(shape, weight, true);
  std::vector<Totals> totals(threads);
  std::vector<std::unique_ptr<SquaredBackward>> parts(threads);
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    totals[index] = Totals(shape.inputs);
    parts[index] = std::make_unique<SquaredBackward>(line, weights);
    const Share share(static_cast<int64_t>(input.maps.images) * line.bands, index, threads);
    parts[index]->run(input, gradient, masked, share, totals[index]);
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    const Share share(shape.outputs, index, threads);
    for (int64_t o = share.low; o < share.high; ++o)
      for (int i = 0; i < shape.inputs; ++i)
        for (int tap = 0; tap < 9; ++tap) {
          float sum = 0;
          for (const auto& part : parts) sum += part->sum(tap, i, static_cast<int>(o));
          weight_gradient[(o * shape.inputs + i) * 9 + tap] = sum;
        }
  });
}

}  // namespace densepath
