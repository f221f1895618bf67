// Grouped 3×3 convolutions of a training step, both ways, in bands of some rows of an image: slice
// by slice what a band reads is laid out as entries (see slices.hpp).
#pragma once

#include <vector>

#include "band_entries.hpp"

namespace densepath {

// The largest step of at most M that takes `total` in as few.
inline int even_step(int total, int most) {
  const int steps = (total + most - 1) / most;
  return (total + steps - 1) / steps;
}

// The pixels of a tile of so many vectors of outputs: what the registers hold.
constexpr int most_pixels(int vectors) { return LANES == 16 || vectors == 1 ? 8 : 12 / vectors; }

// taps_tile of `pixels` pixels, of which write(number, vector, sum) has the results.
template <int NV, int M = most_pixels(NV), class Write>
inline void taps_of(const Slices& slices, int pixels, const Taps& taps, long step,
                    const Write& write) {
  if constexpr (M > 1)
    if (pixels < M) return taps_of<NV, M - 1>(slices, pixels, taps, step, write);
  Vector sums[M][NV];
  if (NV == 1 && slices.narrow)
    taps_tile<true>(taps, step, slices.vector_weights(), sums);
  else
    taps_tile<false>(taps, step, slices.vector_weights(), sums);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) write(r, v, sums[r][v]);
}

// visit<NV>(first vector) of all of a slice's vectors of outputs.
template <class Visit>
inline void each_vectors(const Slices& slices, const Visit& visit) {
  for (int v = 0; v < slices.vectors;) {
    const int count = std::min(2, slices.vectors - v);
    if (count == 1)
      visit(std::integral_constant<int, 1>(), v);
    else
      visit(std::integral_constant<int, 2>(), v);
    v += count;
  }
}

// A band of one slice of a pass, with its weights.
struct Piece {
  const Shape& shape;
  const Slices& slices;
  Band band;
  int slice;
  const float* weights;

  int channel(int vector) const { return slices.first(slice) + vector * LANES; }
  const float* tap(int vector, int number) const {
    return weights + vector * slices.vector_weights() + number * slices.width * LANES;
  }

  // All nine taps, where a tile's first pixel reads from these entries on.
  Taps whole_rows(int vector, const Entries& entries, int row, int column) const {
    Taps taps(3 * slices.width);
    for (int down = 0; down < 3; ++down)
      taps.add(entries.at(row + down, column), tap(vector, 3 * down));
    return taps;
  }

  // Those that lead from outputs to pixel (y, x · stride + column) of the inputs.
  Taps leading_to(int vector, const Entries& entries, int y, int x, int column) const {
    const int s = shape.stride;
    if (s == 1) return whole_rows(vector, entries, y - band.low, x);
    Taps taps(slices.width);
    for (int number = 0; number < 9; ++number) {
      const int down = y + 1 - number / 3, across = column + 1 - number % 3;
      if (down % s == 0 && across % s == 0)
        taps.add(entries.at(down / s - band.low + 1, x + across / s + 1), tap(vector, 8 - number));
    }
    return taps;
  }
};

// A band's outputs of one slice. What is written beyond them, the next slice overwrites.
template <int NV, class Made>
inline void band_outputs(const Piece& of, int first, const Entries& entries,
                         const MapsOf<Made>& out) {
  const int s = of.shape.stride, wide = of.shape.wide, step = even_step(wide, most_pixels(NV));
  const int c = of.channel(first), left = of.slices.channels - c;
  for (int y = of.band.low; y < of.band.high; ++y)
    for (int x = 0; x < wide; x += step) {
      const Taps taps = of.whole_rows(first, entries, (y - of.band.low) * s, x * s);
      Made* to = out.at((static_cast<int64_t>(of.band.image) * of.shape.high + y) * wide + x) + c;
      taps_of<NV>(of.slices, std::min(step, wide - x), taps, s * of.slices.apart(),
                  [&](int r, int v, Vector sum) {
                    if (left > v * LANES)
                      store_some(to + r * out.ld + v * LANES, sum, left - v * LANES);
                  });
    }
}

template <class Number, class Made>
inline void banded_forward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const MapsOf<Made>& out,
                           std::vector<Moments>* moments, int threads) {
  const Slices slices(shape);
  const Floats weights = floats(slices.count() * slices.weights());
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    fill_slices(slices, weight, false, Share(slices.count(), index, threads), weights.get());
  });
  const Banding bands(shape, out.images, 2);
  team.run(threads, [&](int index) {
    const int s = shape.stride;
    const Entries entries(slices, bands.rows() * s + 2, shape.wide * s + 2);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(out, band.image, band.low, band.high);
    };
    const Share share(bands.count(), index, threads);
    bands.each(share, slices.count(), prepare, [&](int slice, Band band) {
      entries.fill(input, slice, band.image, band.low * s - 1, (band.high - band.low) * s + 2);
      const Piece piece{shape, slices, band, slice, weights.get() + slice * slices.weights()};
      each_vectors(slices, [&](auto vectors, int first) {
        band_outputs<vectors>(piece, first, entries, out);
      });
      if (!moments || slice + 1 < slices.count()) return;
      const int64_t first = (static_cast<int64_t>(band.image) * shape.high + band.low) * shape.wide;
      (*moments)[index].add(out.at(first), out.ld, (band.high - band.low) * shape.wide);
    });
  });
}

// A band's gradients of one slice's inputs: those of the rows that its outputs stand on. `entries`
// are of the outputs' gradient, from one row above on.
template <int NV, class Number>
inline void band_inputs(const Piece& of, int first, const Entries& entries,
                        const MaskedOf<Number>& masked, Totals& totals) {
  const Shape& shape = of.shape;
  const int s = shape.stride, step = even_step(shape.wide, most_pixels(NV));
  const int pixels[] = {shape.wide, shape.width / 2};  // of even and of odd columns
  const int c = of.channel(first), wanted = of.slices.outputs(of.slice) - first * LANES;
  const auto write_first = masked.writer(c, first_lanes(wanted));
  const auto write_second = masked.writer(NV > 1 ? c + LANES : c, first_lanes(wanted - LANES));
  Vector gradient[NV] = {}, product[NV] = {};
  for (int y = of.band.low * s; y < std::min(of.band.high * s, shape.height); ++y)
    for (int column = 0; column < std::min(s, shape.width); ++column)
      for (int x = 0; x < pixels[column]; x += step) {
        const Taps taps = of.leading_to(first, entries, y, x, column);
        const int64_t row = static_cast<int64_t>(of.band.image) * shape.height + y;
        const int64_t pixel = row * shape.width + x * s + column;
        taps_of<NV>(of.slices, std::min(step, pixels[column] - x), taps, of.slices.apart(),
                    [&](int r, int v, Vector behind) {
                      (v ? write_second : write_first)(pixel + r * s, behind, gradient[v],
                                                       product[v]);
                    });
      }
  for (int v = 0; v < NV; ++v)
    totals.add(c + v * LANES, wanted - v * LANES, gradient[v], product[v]);
}

// A band's part of a slice's weights' gradients, added to `sums`.
inline void band_weights(const Piece& of, const Entries& inputs, const Entries& outputs,
                         float* sums) {
  const Slices& slices = of.slices;
  const int s = of.shape.stride, row = 3 * slices.width;  // entries of three neighbouring taps
  const int step = even_step(row, 12), high = of.band.high - of.band.low, wide = of.shape.wide;
  for (int v = 0; v < slices.vectors; ++v)
    for (int down = 0; down < 3; ++down, sums += row * LANES)
      for (int first = 0; first < row; first += step) {
        const Field entries{inputs.at(down, 0) + first * slices.entry(), s * slices.apart(),
                            s * inputs.columns * slices.apart()};
        const Field gradients{outputs.plain_at(1, 1) + v * LANES, outputs.plain_apart(),
                              outputs.columns * outputs.plain_apart()};
        const int count = std::min(step, row - first);
        if (slices.narrow)
          weights_tile_of<true>(count, entries, gradients, high, wide, sums + first * LANES);
        else
          weights_tile_of<false>(count, entries, gradients, high, wide, sums + first * LANES);
      }
}

template <class Number>
inline void banded_backward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const Corrected& gradient,
                            const MaskedOf<Number>& masked, float* weight_gradient,
                            const Sums& sums, int threads) {
  const Slices slices(shape);
  const long size = slices.count() * slices.weights();
  const Floats weights = floats(size);
  const Banding bands(shape, input.maps.images, 4);
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    fill_slices(slices, weight, true, Share(slices.count(), index, threads), weights.get());
  });
  team.run(threads, [&](int index) {
    const int s = shape.stride;
    totals[index] = Totals(shape.inputs);
    parts[index] = floats(size);
    const Entries inputs(slices, bands.rows() * s + 2, shape.wide * s + 2);
    const Entries outputs(slices, bands.rows() + 2, shape.wide + 2);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(masked.into, band.image, band.low * s, band.high * s);
      fetch_rows(gradient, band.image, band.low - 1, band.high + 1);
    };
    const Share share(bands.count(), index, threads);
    bands.each(share, slices.count(), prepare, [&](int slice, Band band) {
      const long place = slice * slices.weights();
      const int rows = band.high - band.low;
      inputs.fill(input, slice, band.image, band.low * s - 1, rows * s + 2);
      outputs.fill(gradient, slice, band.image, band.low - 1, rows + 2);
      const Piece piece{shape, slices, band, slice, weights.get() + place};
      band_weights(piece, inputs, outputs, parts[index].get() + place);
      each_vectors(slices, [&](auto vectors, int first) {
        band_inputs<vectors>(piece, first, outputs, masked, totals[index]);
      });
      if (slice + 1 == slices.count()) totals[index].fold();
    });
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    return_slices(slices, parts, Share(slices.count(), index, threads), weight_gradient);
  });
}

}  // namespace densepath
