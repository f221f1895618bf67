// BN-ReLU-1×1 of a training step, with the statistics of what it makes.
//
// Neither direction keeps a normalised copy: both make it anew, a piece of pixels at a time, in the
// cache. Products are of floats or of bfloat16, as the type of the packed weights says; sums are
// always of floats.
#pragma once

#include <algorithm>
#include <vector>

#include "../bfloat16.hpp"
#include "ahead.hpp"
#include "maps.hpp"
#include "team.hpp"

namespace densepath {

enum class Taking { all, second, average };  // of the pixels of a map: `operations.py:Reading`

constexpr int FORWARD = ROWS / MR * MR;  // pixels of a forward piece: whole tiles
constexpr float QUARTER = 0.25f;         // of an average of 2×2

// The pixels that an output pixel is made of.
template <class Read>
struct Origin {
  Taking taking;
  MapsOf<Read> in;
  int high, wide;  // of the outputs

  template <class Number>
  Origin(Taking taking_, const MapsOf<Read>& in_, const MapsOf<Number>& out)
      : taking(taking_), in(in_), high(out.height), wide(out.width) {}
  // The first of them; of an average, the upper left one.
  int64_t first(int64_t pixel) const {
    if (taking == Taking::all) return pixel;
    const int64_t area = static_cast<int64_t>(high) * wide;
    const int64_t image = pixel / area, y = pixel % area / wide, x = pixel % wide;
    return (image * in.height + 2 * y) * in.width + 2 * x;
  }
};

// Weights as panels, made by all threads: `inputs` and `outputs` lie so far apart.
template <class Weights>
inline Weights pack_weights(const float* weight, int inputs, int outputs, long input_step,
                            long output_step, int threads) {
  Weights made(inputs, outputs);
  Team::here().run(threads, [&](int index) {
    const Share share(outputs, index, threads, PANEL);
    for (int64_t j = share.low; j < share.high; j += PANEL)
      made.fill(static_cast<int>(j), weight, input_step, output_step);
  });
  return made;
}

// Columns of the normalised map, for `rows` outputs: a vector at a time to `keep(row, column,
// normalised)`.
template <class Read, class Keep>
inline void lay_out(const Origin<Read>& origin, const PaddedNorm& norm, int64_t pixel, int rows,
                    int first, int count, const Keep& keep) {
  const MapsOf<Read>& in = origin.in;
  for (int r = 0; r < rows; ++r) {
    const Read* from = in.at(origin.first(pixel + r)) + first;
    if (origin.taking != Taking::average) {
      for (int k = 0; k < count; k += LANES) keep(r, k, norm.apply(load(from + k), first + k));
      continue;
    }
    const Read* below = from + in.width * in.ld;
    for (int k = 0; k < count; k += LANES) {
      const int c = first + k;
      const Vector sum = norm.apply(load(from + k), c) + norm.apply(load(from + in.ld + k), c) +
                         norm.apply(load(below + k), c) + norm.apply(load(below + in.ld + k), c);
      keep(r, k, sum * QUARTER);
    }
  }
}

// Rows of a product's results: those of a map of floats where they stand, those of one of bfloat16
// in floats of their own until they are rounded.
template <class Number>
class ResultRows;

template <>
class ResultRows<float> {
 public:
  explicit ResultRows(const Maps& out) : apart(out.ld), out_(out) {}
  float* begin(int64_t pixel, int, bool) const { return out_.at(pixel); }
  void end(int64_t, int) const {}
  void end(int64_t pixel, int rows, Moments& moments) const {
    moments.add(out_.at(pixel), out_.ld, rows);
  }
  const int64_t apart;

 private:
  const Maps& out_;
};

template <>
class ResultRows<BFloat16> {
 public:
  explicit ResultRows(const MapsOf<BFloat16>& out)
      : apart(round_up(out.channels, LANES)), out_(out), held_(floats(FORWARD * apart)) {}
  // Where results are written; what the map has, if they are added to it.
  float* begin(int64_t pixel, int rows, bool add) const {
    for (int r = 0; add && r < rows; ++r)
      for (int c = 0; c < out_.channels; c += LANES)
        store(at(r, c), load_some(out_.at(pixel + r) + c, out_.channels - c));
    return held_.get();
  }
  // All are there: round them into the map.
  void end(int64_t pixel, int rows) const {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < out_.channels; c += LANES) round_into(pixel, r, c);
  }
  void end(int64_t pixel, int rows, Moments& moments) const {
    moments.add(rows, [&](int r, int c) { return round_into(pixel, r, c); });
  }
  const int64_t apart;

 private:
  float* at(int r, int c) const { return held_.get() + r * apart + c; }
  Vector round_into(int64_t pixel, int r, int c) const {
    const Vector value = as_rounded(load(at(r, c)));
    store_some(out_.at(pixel + r) + c, value, out_.channels - c);
    return value;
  }
  const MapsOf<BFloat16>& out_;
  Floats held_;
};

// `weight` [outputs, inputs]; into `out`, or added to it. The statistics are of what stands there.
template <class Weights, class Read, class Made>
inline void pointwise(const MapsOf<Read>& x, const Norms& norms, const float* weight, Taking taking,
                      const MapsOf<Made>& out, bool add, Statistics statistics, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const auto packed =
      pack_weights<Weights>(weight, x.channels, out.channels, 1, x.channels, threads);
  using Number = typename Weights::Number;
  const Origin<Read> origin(taking, x, out);
  std::vector<Moments> moments(threads, Moments(statistics.mean ? out.channels : 0));
  Team::here().run(threads, [&](int index) {
    const Share share(out.pixels(), index, threads, MR);
    const Floats left = floats(static_cast<size_t>(FORWARD) * LDA);
    const ResultRows<Made> results(out);
    constexpr int DEEP = DEPTH<Number>;
    const int tiles =
        (FORWARD / TALL<Number>)*(packed.padded / LANES) / 2 * ((x.channels + DEEP - 1) / DEEP);
    Ahead ahead;
    for (int64_t p = share.low; p < share.high; p += FORWARD) {
      const int rows = static_cast<int>(std::min<int64_t>(FORWARD, share.high - p));
      ahead.clear();
      if (p + FORWARD < share.high) {
        if (taking == Taking::all) ahead.add(x, p + FORWARD, FORWARD, 0, x.channels);
        ahead.add(out, p + FORWARD, FORWARD, 0, out.channels);
      }
      const int each = static_cast<int>(ahead.lines() / std::max(1, tiles)) + 1;
      float* to = results.begin(p, rows, add);
      product(
          packed, rows,
          [&](int first, int count, Number* laid) {
            lay_out(origin, norm, p, rows, first, count, [&](int r, int k, Vector value) {
              store(laid + static_cast<long>(r) * APART<Number> + k, value);
            });
          },
          to, results.apart, {nullptr, add, false}, left.get(), [&] { ahead.fetch(each); });
      if (statistics.mean)
        results.end(p, rows, moments[index]);
      else
        results.end(p, rows);
    }
  });
  if (statistics.mean) gather(moments, statistics);
}

}  // namespace densepath
