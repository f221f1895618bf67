// A band of an image's rows as places in one line, of whose numbers AMX's registers make all three
// products of a 3×3 convolution; see ../taps.hpp.
#pragma once

#include <vector>

#include "../taps.hpp"
#include "pixels.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

// Of so many rows and columns, with a column of zeros on either side.
struct Line {
  int rows, columns;
  int squared;  // places that results are made for, in whole steps
  Line(int rows_, int width)
      : rows(rows_), columns(width + 2), squared(round_up(rows * columns, SQUARE_DEPTH)) {}
  // Of a band with a row above and one below, and what a product reads behind them.
  long all() const { return squared + 2 * columns + SQUARE_DEPTH; }
  long tap(int number) const { return tap_place(number, columns); }
};

// Numbers of bfloat16 of a line's places: [places, channels as `tap_inputs`], zeros where there is
// nothing.
class HalfPlaces {
 public:
  HalfPlaces(const Line& line, int channels)
      : apart(tap_inputs(channels)), line_(line), data_(floats(line.all() * apart / 2)) {}

  BFloat16* at(long place) const {
    return reinterpret_cast<BFloat16*>(data_.get()) + place * apart;
  }

  // Rows [low, high) of an image `height` rows high, the one above and the one below them. Where
  // they are `spread`, every second one has the source's pixels, at every second place.
  template <class Source>
  void read(const Source& source, Span span, int image, int low, int high, int height,
            int spread) const {
    const int width = source.maps.width;
    for (int row = 0; row < line_.rows + 2; ++row) {
      const int y = low - 1 + row;
      BFloat16* to = at(static_cast<long>(row) * line_.columns + 1);
      if (y < 0 || y >= height || y > high || y % spread) {
        std::memset(to, 0, sizeof(BFloat16) * (line_.columns - 2) * apart);
        continue;
      }
      const int64_t first = (static_cast<int64_t>(image) * source.maps.height + y / spread) * width;
      for (int c = 0; c < span.count; c += LANES) {
        const auto read = source.reader(span.first + c, source.maps.channels - span.first - c);
        const Places own = first_lanes(span.count - c);
        for (int x = 0; x < width; ++x)
          store(to + x * spread * apart + c, (Vector)((Places)read(first + x) & own));
      }
    }
  }

  const long apart;

 private:
  const Line& line_;
  const Floats data_;
};

// visit(pixel, place) of the first pixel of each of an image's rows [low, high).
template <class Visit>
inline void each_row(const Line& line, int image, int low, int high, int height, int width,
                     const Visit& visit) {
  for (int y = low; y < high; ++y)
    visit((static_cast<int64_t>(image) * height + y) * width,
          static_cast<long>(y - low) * line.columns);
}

// `results` [places, `apart`] of a span of an image's rows [low, high) to where they are for.
template <class Number>
inline void leave_rows(const Line& line, const float* results, int apart, Span span, int image,
                       int low, int high, const MaskedOf<Number>& masked, Totals& totals) {
  const int width = masked.x.width;
  for (int c = 0; c < span.count; c += LANES) {
    const auto write = masked.writer(span.first + c, first_lanes(span.count - c));
    Vector gradient{}, product{};
    each_row(line, image, low, high, masked.x.height, width, [&](int64_t pixel, long place) {
      const float* from = results + place * apart + c;
      for (int x = 0; x < width; ++x) write(pixel + x, load(from + x * apart), gradient, product);
    });
    totals.add(span.first + c, span.count - c, gradient, product);
  }
}

// What a thread holds of a line in a backward pass: of what entered, and of the gradient.
class LineProducts {
 public:
  LineProducts(const Line& line, int inputs, int outputs)
      : entered(line, inputs),
        gradients(line, outputs),
        line_(line),
        inputs_(round_up(inputs, SQUARE)),
        outputs_(round_up(outputs, SQUARE)),
        turned_apart_(round_up(static_cast<int>(line.all()), SQUARE_DEPTH)),
        turned_(floats(static_cast<size_t>(inputs_) * turned_apart_ / 2)),
        pairs_(floats(static_cast<size_t>(line.squared) / 2 * outputs_)),
        results_(floats(static_cast<size_t>(line.squared) * inputs_)) {}

  // Floats of the sums of a convolution's weights: [9, inputs, outputs] in whole squares.
  static size_t sums(int inputs, int outputs) {
    return static_cast<size_t>(9) * round_up(inputs, SQUARE) * round_up(outputs, SQUARE);
  }
  // Of these the place of one.
  static size_t sum(int inputs, int outputs, int tap, int i, int o) {
    return (static_cast<size_t>(tap) * round_up(inputs, SQUARE) + i) * round_up(outputs, SQUARE) +
           o;
  }

  // Adds to them the products of all places.
  void add_weights(float* sums) const {
    turn_entered();
    pair_gradients();
    for (int tap = 0; tap < 9; ++tap)
      add_tap(tap, sums + static_cast<size_t>(tap) * inputs_ * outputs_);
  }

  // [places, inputs in whole squares]: the gradients of what entered.
  const float* multiply(const PackedPairs& weights) const {
    multiply_taps(gradients.at(0), gradients.apart, line_.columns, weights, line_.squared,
                  results_.get(), {});
    return results_.get();
  }

  const HalfPlaces entered, gradients;

 private:
  void turn_entered() const {
    for (int c = 0; c < inputs_; c += SQUARE)
      for (long place = 0; place < line_.all() / SQUARE_DEPTH * SQUARE_DEPTH; place += SQUARE_DEPTH)
        turn_pairs(entered.at(place) + c, entered.apart,
                   turned_.get() + (c * turned_apart_ + place) / 2, turned_apart_ / 2);
  }

  // The gradients of the band's own places in pairs, in panels.
  void pair_gradients() const {
    const long own = static_cast<long>(line_.rows) * line_.columns;
    for (int o = 0; o < outputs_; o += LANES) {
      const int width = std::min(PANEL, outputs_ - o / PANEL * PANEL);
      float* panel = pairs_.get() + o / PANEL * PANEL * (line_.squared / 2) + o % PANEL;
      const auto bits = [&](long place) {
        return place < own ? (Pairs)load(gradients.at(place + line_.tap(4)) + o) : Pairs{};
      };
      for (long place = 0; place < line_.squared; place += 2, panel += width)
        *reinterpret_cast<Pairs*>(panel) = bits(place) >> 16 | bits(place + 1);
    }
  }

  void add_tap(int tap, float* sums) const {
    const char* left = reinterpret_cast<const char*>(turned_.get());
    for (int o = 0; o < outputs_; o += PANEL)
      multiply_by_squares(SquareLeft{left + line_.tap(tap) * sizeof(BFloat16),
                                     turned_apart_ * static_cast<long>(sizeof(BFloat16)), nullptr,
                                     1, line_.squared / SQUARE_DEPTH},
                          inputs_, pairs_.get() + o * (line_.squared / 2),
                          std::min(PANEL, outputs_ - o), sums + o, outputs_, {nullptr, true, false},
                          PANEL, Nothing());
  }

  const Line& line_;
  const int inputs_, outputs_;
  const long turned_apart_;
  const Floats turned_, pairs_, results_;
};

// The gradients of weights [outputs, inputs, 3, 3], of whose sums each thread has a part:
// place(tap, input, output) is where one stands in it.
template <class Place>
inline void return_sums(const std::vector<Floats>& parts, int outputs, int inputs, int threads,
                        const Place& place, float* weight_gradient) {
  Team::here().run(threads, [&](int index) {
    const Share share(outputs, index, threads);
    for (int o = static_cast<int>(share.low); o < share.high; ++o)
      for (int i = 0; i < inputs; ++i)
        for (int tap = 0; tap < 9; ++tap) {
          float sum = 0;
          for (const Floats& part : parts) sum += part[place(tap, i, o)];
          weight_gradient[(static_cast<size_t>(o) * inputs + i) * 9 + tap] = sum;
        }
  });
}

}  // namespace densepath
