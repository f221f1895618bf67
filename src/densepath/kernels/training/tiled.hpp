// 3×3 convolutions of stride 1 in a quarter of the multiplications, both ways: see winograd.hpp.
//
// The tiles of all images stand in one line, which the threads share out. Some tiles at a time are
// transformed from the map straight away, normalised as they are read.
#pragma once

#include <vector>

#include "products.hpp"
#include "tiles.hpp"

namespace densepath {

// visit(first, count) of a share's tiles, some at a time.
template <class Visit>
inline void each_few(Share share, const Visit& visit) {
  const int64_t total = share.high - share.low;
  if (!total) return;
  const int64_t visits = (total + TOGETHER - 1) / TOGETHER;
  const int step = round_up(static_cast<int>((total + visits - 1) / visits), MR);
  for (int64_t t = share.low; t < share.high; t += step)
    visit(t, static_cast<int>(std::min<int64_t>(step, share.high - t)));
}

template <class Number>
inline void tiled_forward(const Shape& shape, const ActivationsOf<Number>& input,
                          const float* weight, const Maps& out, int threads) {
  const TileWeights weights(shape, false);
  Team& team = Team::here();
  team.run(threads, [&](int index) { weights.fill(weight, Share(weights.rows, index, threads)); });
  const Tiling all(out);
  team.run(threads, [&](int index) {
    const Points entered(shape.inputs), left(shape.outputs);
    each_few(Share(all.count(), index, threads), [&](int64_t first, int count) {
      for (int i = 0; i < count; ++i)
        enter_activations(input, all, Tile(all, first + i), entered.tile(i), entered.between);
      for (int q = 0; q < POINTS; ++q)
        multiply({entered.point(q), entered.apart}, {weights.point(q), weights.padded}, count,
                 shape.inputs, static_cast<int>(weights.padded),
                 {left.point(q), left.apart, false});
      for (int i = 0; i < count; ++i) {
        const Tile tile(all, first + i);
        leave_tile(left.tile(i), left.between, shape.outputs, out.at(tile.pixel),
                   out.width * out.ld, out.ld, tile.high, tile.wide);
      }
    });
  });
}

// What a thread has for the backward pass.
struct TiledBackward {
  const Shape& shape;
  const Tiling& all;
  const TileWeights& weights;
  Surroundings outputs;
  Points entered, gradients, spread;
  TiledBackward(const Shape& shape_, const Tiling& all_, const TileWeights& weights_)
      : shape(shape_),
        all(all_),
        weights(weights_),
        outputs(shape.outputs),
        entered(shape.inputs),
        gradients(shape.outputs),
        spread(shape.outputs) {}

  template <class Number>
  void run(const ActivationsOf<Number>& input, const Corrected& gradient,
           const MaskedOf<Number>& masked, Share share, const TileSums& sums, int thread,
           Totals& totals) {
    sums.clear(thread);
    each_few(share, [&](int64_t first, int count) {
      for (int i = 0; i < count; ++i) {
        const Tile tile(all, first + i);
        enter_activations(input, all, tile, entered.tile(i), entered.between);
        outputs.read(gradient, all, tile);
        enter_surroundings(outputs, shape.outputs, gradients.tile(i), gradients.between);
        spread_tile(outputs, shape.outputs, spread.tile(i), spread.between);
      }
      for (int q = 0; q < POINTS; ++q) {
        multiply({entered.point(q), entered.apart, true}, {spread.point(q), spread.apart},
                 shape.inputs, count, static_cast<int>(sums.padded),
                 {sums.point(thread, q), sums.padded, true});
        multiply({gradients.point(q), gradients.apart}, {weights.point(q), weights.padded}, count,
                 shape.outputs, static_cast<int>(weights.padded),
                 {entered.point(q), entered.apart, false});
      }
      for (int i = 0; i < count; ++i) leave(Tile(all, first + i), entered.tile(i), masked, totals);
      totals.fold();
    });
  }

  template <class Number>
  void leave(const Tile& tile, const float* from, const MaskedOf<Number>& masked,
             Totals& totals) const {
    if (tile.high == TILE && tile.wide == TILE)
      leave_masked<true>(from, entered.between, tile, masked, totals);
    else
      leave_masked<false>(from, entered.between, tile, masked, totals);
  }
};

template <class Number>
inline void tiled_backward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const Corrected& gradient,
                           const MaskedOf<Number>& masked, float* weight_gradient, const Sums& sums,
                           int threads) {
  const TileWeights weights(shape, true);
  Team& team = Team::here();
  team.run(threads, [&](int index) { weights.fill(weight, Share(weights.rows, index, threads)); });
  const Tiling all(input.maps);
  const TileSums parts(shape, threads);
  std::vector<Totals> totals(threads);
  team.run(threads, [&](int index) {
    totals[index] = Totals(shape.inputs);
    TiledBackward(shape, all, weights)
        .run(input, gradient, masked, Share(all.count(), index, threads), parts, index,
             totals[index]);
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    return_weights(shape, parts, Share(shape.inputs, index, threads), weight_gradient);
  });
}

// Whether tiles are worth their transforms: they waste what lies outside of the map.
template <class Number>
inline bool is_tiled(const Shape& shape, const MapsOf<Number>& maps) {
  const Tiling all(maps);
  const int64_t pixels = static_cast<int64_t>(shape.height) * shape.width;
  return shape.groups == 1 && shape.stride == 1 && all.count() >= 8 &&
         pixels >= 6L * all.down * all.across;
}

}  // namespace densepath
