// BN-ReLU-1×1 of a training step: forwards with the statistics of what it makes, and backwards.
//
// Neither direction keeps a normalised copy: both make it anew, a piece of pixels at a time, in the
// cache. Backwards a piece's gradient [pixels, outputs] is the left operand of two products: its
// rows by the weights give the gradient of the inputs, its columns by the normalised inputs that of
// the weights.
#pragma once

#include <algorithm>
#include <vector>

#include "ahead.hpp"
#include "maps.hpp"
#include "team.hpp"

namespace densepath {

enum class Taking { all, second, average };  // of the pixels of a map: `operations.py:Reading`

constexpr int PIECE = 96 / MR * MR;      // pixels of a backward piece: whole tiles
constexpr int FORWARD = ROWS / MR * MR;  // and of a forward one
constexpr int BREADTH = 4 * PANEL;       // channels of a backward piece
constexpr float QUARTER = 0.25f;         // of an average of 2×2

// The pixels that an output pixel is made of.
struct Origin {
  Taking taking;
  Maps in, out;

  // The first of them; of an average, the upper left one.
  int64_t first(int64_t pixel) const {
    if (taking == Taking::all) return pixel;
    const int64_t area = static_cast<int64_t>(out.height) * out.width;
    const int64_t image = pixel / area, y = pixel % area / out.width, x = pixel % out.width;
    return (image * in.height + 2 * y) * in.width + 2 * x;
  }
};

// Weights as panels, made by all threads: `inputs` and `outputs` lie so far apart.
inline Packed pack_weights(const float* weight, int inputs, int outputs, long input_step,
                           long output_step, int threads) {
  Packed made(inputs, outputs);
  Team::here().run(threads, [&](int index) {
    const Share share(outputs, index, threads, PANEL);
    for (int64_t j = share.low; j < share.high; j += PANEL)
      made.fill(static_cast<int>(j), weight, input_step, output_step);
  });
  return made;
}

// Columns of the normalised map, for `rows` outputs: a vector at a time to `keep(row, column, x,
// normalised)`; x is of no use where it is an average's.
template <class Keep>
inline void lay_out(const Origin& origin, const PaddedNorm& norm, int64_t pixel, int rows,
                    int first, int count, const Keep& keep) {
  const Maps& in = origin.in;
  for (int r = 0; r < rows; ++r) {
    const float* from = in.at(origin.first(pixel + r)) + first;
    if (origin.taking != Taking::average) {
      for (int k = 0; k < count; k += LANES) {
        const Vector x = load(from + k);
        keep(r, k, x, norm.apply(x, first + k));
      }
      continue;
    }
    const float* below = from + in.width * in.ld;
    for (int k = 0; k < count; k += LANES) {
      const int c = first + k;
      const Vector sum = norm.apply(load(from + k), c) + norm.apply(load(from + in.ld + k), c) +
                         norm.apply(load(below + k), c) + norm.apply(load(below + in.ld + k), c);
      keep(r, k, Vector{}, sum * QUARTER);
    }
  }
}

// `weight` [outputs, inputs]; into `out`, or added to it.
inline void pointwise(const Maps& x, const Norms& norms, const float* weight, Taking taking,
                      const Maps& out, bool add, Statistics statistics, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const Packed packed = pack_weights(weight, x.channels, out.channels, 1, x.channels, threads);
  const Origin origin{taking, x, out};
  std::vector<Moments> moments(threads, Moments(statistics.mean ? out.channels : 0));
  Team::here().run(threads, [&](int index) {
    const Share share(out.pixels(), index, threads, MR);
    const Floats left = floats(static_cast<size_t>(FORWARD) * LDA);
    const int tiles = (FORWARD / MR) * (packed.padded / LANES) / 2 * ((x.channels + KC - 1) / KC);
    Ahead ahead;
    for (int64_t p = share.low; p < share.high; p += FORWARD) {
      const int rows = static_cast<int>(std::min<int64_t>(FORWARD, share.high - p));
      ahead.clear();
      if (p + FORWARD < share.high) {
        if (taking == Taking::all) ahead.add(x, p + FORWARD, FORWARD, 0, x.channels);
        ahead.add(out, p + FORWARD, FORWARD, 0, out.channels);
      }
      const int each = static_cast<int>(ahead.lines() / std::max(1, tiles)) + 1;
      product(
          packed, rows,
          [&](int first, int count, float* to) {
            lay_out(origin, norm, p, rows, first, count, [&](int r, int k, Vector, Vector value) {
              store(to + static_cast<long>(r) * LDA + k, value);
            });
          },
          out.at(p), out.ld, {nullptr, add, false}, left.get(), [&] { ahead.fetch(each); });
      if (statistics.mean) moments[index].add(out.at(p), out.ld, rows);
    }
  });
  if (!statistics.mean) return;
  for (int i = 1; i < threads; ++i) moments[0].add(moments[i]);
  moments[0].write(statistics.mean, statistics.variance);
}

// A thread's part of the backward pass.
class PointwiseBackward {
 public:
  PointwiseBackward(const Origin& origin, const PaddedNorm& norm, const Packed& weights,
                    const Gradients& gradient, const Maps& into, bool add)
      : origin_(origin),
        norm_(norm),
        weights_(weights),
        gradient_(gradient),
        into_(into),
        add_(add),
        inputs_(origin.in.channels),
        outputs_(gradient.data.channels),
        breadths_((outputs_ + KC - 1) / KC),
        left_(floats(static_cast<size_t>(breadths_) * PIECE * LDA)),
        entered_(floats(static_cast<size_t>(PIECE) * BREADTH)),
        results_(floats(static_cast<size_t>(PIECE) * BREADTH)),
        found_(floats(static_cast<size_t>(PIECE) * BREADTH)),
        sums(2 * static_cast<size_t>(inputs_)),
        weight(floats(static_cast<size_t>(outputs_) * inputs_)),
        constant_(padded(gradient.constant, outputs_)),
        slope_(padded(gradient.slope, outputs_)) {}

  void run(int64_t low, int64_t high) {
    for (int64_t p = low; p < high; p += PIECE) {
      const int rows = static_cast<int>(std::min<int64_t>(PIECE, high - p));
      take_gradient(p, rows);
      for (int c = 0; c < inputs_; c += BREADTH) {
        look_ahead(p, c, high);
        piece(p, rows, c, std::min(BREADTH, inputs_ - c));
      }
      begun_ = true;
    }
  }

 private:
  float* left(int output) const {
    return left_.get() + static_cast<size_t>(output / KC) * PIECE * LDA + output % KC;
  }
  // Where a vector of the normalised piece stands: in panels, rows of which are pixels.
  float* entered(int r, int k) const {
    const int panel = k / PANEL * PANEL, width = std::min(PANEL, breadth_ - panel);
    return entered_.get() + static_cast<size_t>(panel) * PIECE + r * width + k % PANEL;
  }

  void take_gradient(int64_t pixel, int rows) {
    for (int first = 0; first < outputs_; first += KC) {
      const int count = std::min(KC, outputs_ - first);
      float* to = left(first);
      for (int r = 0; r < rows; ++r, to += LDA) {
        const float* from = gradient_.data.at(pixel + r) + first;
        if (!gradient_.constant) {
          copy(to, from, count);
          continue;
        }
        const float* y = gradient_.y.at(pixel + r) + first;
        for (int k = 0; k < count; k += LANES)
          store(to + k, load(from + k) + load(constant_.get() + first + k) +
                            load(slope_.get() + first + k) * load(y + k));
      }
    }
  }

  // What the next piece reads and writes comes while this one is computed.
  void look_ahead(int64_t pixel, int first, int64_t high) {
    ahead_.clear();
    int next = first + BREADTH;
    if (next >= inputs_) {
      next = 0;
      pixel += PIECE;
      const int64_t rows = std::min<int64_t>(PIECE, high - pixel);
      ahead_.add(gradient_.data, pixel, rows, 0, outputs_);
      if (gradient_.constant) ahead_.add(gradient_.y, pixel, rows, 0, outputs_);
    }
    const int64_t rows = std::min<int64_t>(PIECE, high - pixel);
    const int count = std::min(BREADTH, inputs_ - next);
    if (origin_.taking == Taking::all) {
      ahead_.add(origin_.in, pixel, rows, next, count);
      ahead_.add(into_, pixel, rows, next, count);
    }
    const int tiles =
        (PIECE / MR) * (BREADTH / PANEL) * breadths_ + outputs_ / MR * (BREADTH / PANEL);
    each_ = static_cast<int>(ahead_.lines() / tiles) + 1;
  }

  void piece(int64_t pixel, int rows, int first, int count) {
    breadth_ = round_up(count, LANES);
    lay_out(origin_, norm_, pixel, rows, first, count, [&](int r, int k, Vector x, Vector value) {
      store(found_.get() + r * BREADTH + k, x);
      store(entered(r, k), value);
    });
    for (int j = 0; j < count; j += PANEL) input_gradient(rows, first + j, results_.get() + j);
    if (origin_.taking == Taking::average)
      leave_averages(pixel, rows, first, count);
    else
      leave(pixel, rows, first, count);
    for (int part = 0; part < outputs_; part += KC) {
      const int deep = std::min(KC, outputs_ - part), tiles = (deep + MR - 1) / MR;
      for (int i = 0; i < tiles; ++i)
        weight_gradient(rows, part + deep * i / tiles, part + deep * (i + 1) / tiles, first, count);
    }
  }

  // One panel of columns of the product with the weights.
  void input_gradient(int rows, int column, float* to) {
    const int width = weights_.panel_width(column);
    for (int o = 0; o < outputs_; o += KC) {
      const int deep = std::min(KC, outputs_ - o);
      const float* right = weights_.panel(column, o);
      const Ending ending{nullptr, o > 0, false};
      for (int r = 0; r < rows; r += MR) {
        const float* a = left(o) + static_cast<long>(r) * LDA;
        float* c = to + static_cast<long>(r) * BREADTH;
        if (width == PANEL)
          tile_of<2>(std::min(MR, rows - r), a, right, deep, c, BREADTH, ending, PANEL);
        else
          tile_of<1>(std::min(MR, rows - r), a, right, deep, c, BREADTH, ending, LANES);
        ahead_.fetch(each_);
      }
    }
  }

  // A tile's rows of the weights' gradient: those of the outputs from `o` on, below `end`.
  void weight_gradient(int rows, int o, int end, int first, int count) {
    const int high = end - o;
    const Ending ending{nullptr, begun_, false};
    float* c = weight.get() + static_cast<size_t>(o) * inputs_ + first;
    for (int j = 0; j < count; j += PANEL) {
      if (count - j > LANES)
        tile_of<2, 1, LDA>(high, left(o), entered(0, j), rows, c + j, inputs_, ending, count - j);
      else
        tile_of<1, 1, LDA>(high, left(o), entered(0, j), rows, c + j, inputs_, ending, count - j);
      ahead_.fetch(each_);
    }
  }

  // The mask, the sums and the place of the inputs' gradient.
  void leave(int64_t pixel, int rows, int first, int count) {
    for (int k = 0; k < count; k += PANEL) {
      if (count - k < PANEL)
        for (int v = k; v < count; v += LANES)
          leave_columns<1, false>(pixel, rows, first, v, count);
      else if (add_)
        leave_columns<2, true>(pixel, rows, first, k, count);
      else
        leave_columns<2, false>(pixel, rows, first, k, count);
    }
  }

  // `NV` vectors of columns: whole ones that are ADDED, or any.
  template <int NV, bool ADDED>
  void leave_columns(int64_t pixel, int rows, int first, int k, int count) {
    Vector scale[NV], centre[NV], gradient[NV] = {}, product[NV] = {};
    for (int v = 0; v < NV; ++v) {
      scale[v] = load(norm_.scale.get() + first + k + v * LANES);
      centre[v] = load(norm_.centre.get() + first + k + v * LANES);
    }
    const float *result = results_.get() + k, *found = found_.get() + k, *in = entered(0, k);
    const int step = static_cast<int>(entered(1, k) - in);
    for (int r = 0; r < rows; ++r, result += BREADTH, found += BREADTH, in += step) {
      float* to = into_.at(origin_.first(pixel + r)) + first + k;
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const Vector g = masked(load(result + v * LANES), load(in + v * LANES));
        gradient[v] += g;
        product[v] += g * (load(found + v * LANES) - centre[v]);
        if (ADDED)
          store(to + v * LANES, load(to + v * LANES) + scale[v] * g);
        else
          put(to + v * LANES, scale[v] * g, count - k - v * LANES);
      }
    }
    for (int v = 0; v < NV; ++v)
      keep(first + k + v * LANES, gradient[v], product[v], count - k - v * LANES);
  }

  void leave_averages(int64_t pixel, int rows, int first, int count) {
    const long line[4] = {0, 1, origin_.in.width, origin_.in.width + 1};
    for (int k = 0; k < count; k += LANES) {
      const int c = first + k;
      const Vector scale = load(norm_.scale.get() + c), centre = load(norm_.centre.get() + c);
      Vector gradient{}, product{};
      for (int r = 0; r < rows; ++r) {
        const int64_t corner = origin_.first(pixel + r);
        const Vector given = load(results_.get() + static_cast<long>(r) * BREADTH + k) * QUARTER;
        for (const long step : line) {
          const Vector x = load(origin_.in.at(corner + step) + c);
          const Vector g = masked(given, norm_.apply(x, c));
          gradient += g;
          product += g * (x - centre);
          put(into_.at(corner + step) + c, scale * g, count - k);
        }
      }
      keep(c, gradient, product, count - k);
    }
  }

  static Vector masked(Vector gradient, Vector activation) {
    return activation <= 0.0f ? Vector{} : gradient;
  }

  void put(float* to, Vector value, int columns) const {
    store_some(to, add_ ? value + load_some(to, columns) : value, columns);
  }

  void keep(int channel, Vector gradient, Vector product, int columns) {
    for (int lane = 0; lane < std::min(LANES, columns); ++lane) {
      sums[channel + lane] += gradient[lane];
      sums[inputs_ + channel + lane] += product[lane];
    }
  }

  const Origin& origin_;
  const PaddedNorm& norm_;
  const Packed& weights_;  // [outputs, inputs]
  const Gradients& gradient_;
  const Maps& into_;
  const bool add_;
  const int inputs_, outputs_, breadths_;
  Ahead ahead_;
  int each_ = 0;  // lines that are fetched beside a tile
  bool begun_ = false;
  int breadth_ = 0;  // of the piece that is at hand, in whole vectors
  Floats left_, entered_, results_, found_;

 public:
  std::vector<double> sums;  // [2, inputs]
  Floats weight;             // [outputs, inputs]

 private:
  Floats constant_, slope_;
};

// Zeros in the pixels that nothing reads.
inline void clear(const Maps& map, int threads) {
  Team::here().run(threads, [&](int index) {
    const Share share(map.pixels(), index, threads);
    for (int64_t p = share.low; p < share.high; ++p)
      std::memset(map.at(p), 0, sizeof(float) * map.channels);
  });
}

inline void pointwise_backward(const Maps& x, const Norms& norms, const float* weight,
                               Taking taking, const Gradients& gradient, const Maps& into, bool add,
                               float* weight_gradient, Sums sums, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const int inputs = x.channels, outputs = gradient.data.channels;
  const Packed packed = pack_weights(weight, outputs, inputs, inputs, 1, threads);
  const Origin origin{taking, x, gradient.data};
  if (taking != Taking::all && !add) clear(into, threads);
  std::vector<std::unique_ptr<PointwiseBackward>> parts(threads);
  Team::here().run(threads, [&](int index) {
    parts[index] = std::make_unique<PointwiseBackward>(origin, norm, packed, gradient, into, add);
    const Share share(gradient.data.pixels(), index, threads, MR);
    parts[index]->run(share.low, share.high);
  });
  const int64_t size = static_cast<int64_t>(outputs) * inputs;
  Team::here().run(threads, [&](int index) {
    const Share share(size, index, threads, LANES);
    std::memcpy(weight_gradient + share.low, parts[0]->weight.get() + share.low,
                sizeof(float) * (share.high - share.low));
    for (int i = 1; i < threads; ++i)
      for (int64_t e = share.low; e < share.high; ++e) weight_gradient[e] += parts[i]->weight[e];
  });
  for (int c = 0; c < inputs; ++c) {
    sums.gradient[c] = sums.product[c] = 0;
    for (const auto& part : parts) {
      sums.gradient[c] += part->sums[c];
      sums.product[c] += part->sums[inputs + c];
    }
  }
}

}  // namespace densepath
