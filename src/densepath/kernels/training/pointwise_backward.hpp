// Of `pointwise`: a piece's gradient [pixels, outputs] is the left operand of two products. Its
// rows by the weights give the gradient of the inputs, its columns by the normalised inputs that of
// the weights.
#pragma once

#include <memory>
#include <vector>

#include "pieces.hpp"
#include "pointwise.hpp"

namespace densepath {

// A thread's part of the backward pass.
template <class Weights, class Read, class Given>
class PointwiseBackward {
 public:
  PointwiseBackward(const Origin<Read>& origin, const PaddedNorm& norm, const Weights& weights,
                    const GradientsOf<Given>& gradient, const Maps& into, bool add)
      : origin_(origin),
        norm_(norm),
        weights_(weights),
        gradient_(gradient),
        into_(into),
        add_(add),
        inputs_(origin.in.channels),
        outputs_(gradient.outputs()),
        left_(outputs_),
        results_(floats(static_cast<size_t>(PIECES) * WIDE)),
        constant_(padded(gradient.constant, outputs_)),
        slope_(padded(gradient.slope, outputs_)),
        sums(2 * static_cast<size_t>(inputs_)),
        apart(round_up(inputs_, LANES)),
        weight(floats(static_cast<size_t>(round_up(outputs_, SQUARE)) * apart)) {}

  void run(int64_t low, int64_t high) {
    for (int64_t p = low; p < high; p += PIECES) {
      const int rows = static_cast<int>(std::min<int64_t>(PIECES, high - p));
      take_gradient(p, rows);
      for (int c = 0; c < inputs_; c += WIDE) {
        look_ahead(p, c, high);
        piece(p, rows, c, std::min(WIDE, inputs_ - c));
      }
      begun_ = true;
    }
  }

 private:
  using Number = typename Weights::Number;
  static constexpr int DEEP = DEPTH<Number>, PIECES = PIECE<Number>;
  static constexpr int WIDE = BREADTH<Number>;

  void take_gradient(int64_t pixel, int rows) {
    const int own = gradient_.data.channels;
    for (int r = 0; r < rows; ++r) {
      const Given* from = gradient_.data.at(pixel + r);
      const Given* y = gradient_.constant ? gradient_.y.at(pixel + r) : nullptr;
      for (int o = 0; o < own; o += LANES) {
        const Vector value = load(from + o);
        left_.keep(
            r, o,
            y ? value + load(constant_.get() + o) + load(slope_.get() + o) * load(y + o) : value);
      }
      for (int o = own; o < outputs_; o += LANES)
        left_.keep(r, o, load(gradient_.more.at(pixel + r) + o - own));
    }
    left_.end(rows, outputs_);
  }

  // What the next piece reads and writes comes while this one is computed.
  void look_ahead(int64_t pixel, int first, int64_t high) {
    ahead_.clear();
    int next = first + WIDE;
    if (next >= inputs_) {
      next = 0;
      pixel += PIECES;
      const int64_t rows = std::min<int64_t>(PIECES, high - pixel);
      ahead_.add(gradient_.data, pixel, rows, 0, gradient_.data.channels);
      if (gradient_.more.channels)
        ahead_.add(gradient_.more, pixel, rows, 0, gradient_.more.channels);
      if (gradient_.constant) ahead_.add(gradient_.y, pixel, rows, 0, outputs_);
    }
    const int64_t rows = std::min<int64_t>(PIECES, high - pixel);
    const int count = std::min(WIDE, inputs_ - next);
    if (origin_.taking == Taking::all) {
      ahead_.add(origin_.in, pixel, rows, next, count);
      ahead_.add(into_, pixel, rows, next, count);
    }
    const int panels = (std::min(WIDE, inputs_ - first) + PANEL - 1) / PANEL;
    const int tiles = (PIECES / TALL<Number>)*((outputs_ + DEEP - 1) / DEEP) +
                      (outputs_ + TALL<Number> - 1) / TALL<Number>;
    each_ = static_cast<int>(ahead_.lines() / (panels * tiles)) + 1;
  }

  void piece(int64_t pixel, int rows, int first, int count) {
    entered_.begin(count);
    lay_out(origin_, norm_, pixel, rows, first, count,
            [&](int r, int k, Vector value) { entered_.keep(r, k, value); });
    for (int j = 0; j < count; j += PANEL) input_gradient(rows, first + j, results_.get() + j);
    if (origin_.taking == Taking::average)
      leave_averages(pixel, rows, first, count);
    else
      leave(pixel, rows, first, count);
    for (int j = 0; j < count; j += PANEL)
      left_.times(rows, outputs_, entered_.panel(j), std::min(PANEL, round_up(count - j, LANES)),
                  weight.get() + first + j, apart, begun_, [&] { ahead_.fetch(each_); });
  }

  // One panel of columns of the product with the weights.
  void input_gradient(int rows, int column, float* to) {
    const int width = weights_.panel_width(column);
    for (int o = 0; o < outputs_; o += DEEP)
      multiply_panel(left_.row(0, o), rows, weights_.panel(column, o), width,
                     std::min(DEEP, outputs_ - o), to, WIDE, {nullptr, o > 0, false}, width,
                     [&] { ahead_.fetch(each_); });
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
    Vector scale[NV], shift[NV], centre[NV], gradient[NV] = {}, product[NV] = {};
    for (int v = 0; v < NV; ++v) {
      scale[v] = load(norm_.scale.get() + first + k + v * LANES);
      shift[v] = load(norm_.shift.get() + first + k + v * LANES);
      centre[v] = load(norm_.centre.get() + first + k + v * LANES);
    }
    const float* result = results_.get() + k;
    for (int r = 0; r < rows; ++r, result += WIDE) {
      const int64_t place = origin_.first(pixel + r);
      const Read* from = origin_.in.at(place) + first + k;
      float* to = into_.at(place) + first + k;
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const Vector x = load(from + v * LANES);
        const Vector g = masked(load(result + v * LANES), x * scale[v] + shift[v]);
        gradient[v] += g;
        product[v] += g * (x - centre[v]);
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
        const Vector given = load(results_.get() + static_cast<long>(r) * WIDE + k) * QUARTER;
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

  const Origin<Read>& origin_;
  const PaddedNorm& norm_;
  const Weights& weights_;  // [outputs, inputs]
  const GradientsOf<Given>& gradient_;
  const Maps& into_;
  const bool add_;
  const int inputs_, outputs_;
  Ahead ahead_;
  int each_ = 0;  // lines that are fetched beside a tile
  bool begun_ = false;
  PieceGradient<Number> left_;
  PieceInputs<Number> entered_;
  Floats results_, constant_, slope_;

 public:
  std::vector<double> sums;  // [2, inputs]
  const long apart;          // rows of `weight`
  Floats weight;             // [outputs, inputs]
};

// Zeros in the pixels that nothing reads.
inline void clear(const Maps& map, int threads) {
  Team::here().run(threads, [&](int index) {
    const Share share(map.pixels(), index, threads);
    for (int64_t p = share.low; p < share.high; ++p)
      std::memset(map.at(p), 0, sizeof(float) * map.channels);
  });
}

template <class Weights, class Read, class Given>
inline void pointwise_backward(const MapsOf<Read>& x, const Norms& norms, const float* weight,
                               Taking taking, const GradientsOf<Given>& gradient, const Maps& into,
                               bool add, float* weight_gradient, Sums sums, int threads) {
  const PaddedNorm norm(norms, x.channels);
  const int inputs = x.channels, outputs = gradient.outputs();
  const auto packed = pack_weights<Weights>(weight, outputs, inputs, inputs, 1, threads);
  const Origin<Read> origin(taking, x, gradient.data);
  if (taking != Taking::all && !add) clear(into, threads);
  using Pass = PointwiseBackward<Weights, Read, Given>;
  std::vector<std::unique_ptr<Pass>> parts(threads);
  Team::here().run(threads, [&](int index) {
    parts[index] = std::make_unique<Pass>(origin, norm, packed, gradient, into, add);
    const Share share(gradient.data.pixels(), index, threads, MR);
    parts[index]->run(share.low, share.high);
  });
  const long apart = parts[0]->apart;
  Team::here().run(threads, [&](int index) {
    const Share share(outputs, index, threads);
    for (int64_t o = share.low; o < share.high; ++o) {
      float* to = weight_gradient + o * inputs;
      std::memcpy(to, parts[0]->weight.get() + o * apart, sizeof(float) * inputs);
      for (int i = 1; i < threads; ++i)
        for (int c = 0; c < inputs; ++c) to[c] += parts[i]->weight[o * apart + c];
    }
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
