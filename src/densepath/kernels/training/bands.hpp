// Grouped 3×3 convolutions of a training step, both ways, in bands of some rows of an image: slice
// by slice what a band reads is laid out with zeros around it (see slices.hpp).
//
// Of maps in bfloat16 the products are of pairs where the processor multiplies them and a group's
// width is even; the gradients of the weights, whose sums are over pixels, and of what a stride of
// two reads are of floats.
#pragma once

#include <vector>

#include "band_products.hpp"

namespace densepath {

// A band's outputs of one slice. What is written beyond them, the next slice overwrites.
template <class Entry, class Made>
inline void band_outputs(const Piece<Entry>& of, const EntriesOf<Entry>& entries,
                         const MapsOf<Made>& out) {
  const int wide = of.shape.wide, rows = of.band.high - of.band.low;
  const int64_t first = (static_cast<int64_t>(of.band.image) * of.shape.high + of.band.low) * wide;
  each_vectors(of.slices, [&](auto vectors, int v) {
    const int c = of.channel(v);
    const auto target_of = [&](int row) {
      return TargetOf<Made>{out.at(first + static_cast<int64_t>(row) * wide) + c, out.ld,
                            of.slices.channels - c, nullptr, false};
    };
    if (of.shape.stride == 1)
      multiply_rows<Entry, vectors, 1, true>(of, v, entries, rows, wide, target_of);
    else
      multiply_rows<Entry, vectors, 2, true>(of, v, entries, rows, wide, target_of);
  });
}

template <class Entry, class Number, class Made>
inline void banded_forward_by(const Shape& shape, const ActivationsOf<Number>& input,
                              const float* weight, const MapsOf<Made>& out,
                              std::vector<Moments>* moments, int threads) {
  const Slices<Entry> slices(shape);
  const Floats weights = floats(slices.count() * slices.weights());
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    fill_slices(slices, weight, false, Share(slices.count(), index, threads), weights.get());
  });
  const Banding bands(shape, out.images, 2);
  team.run(threads, [&](int index) {
    const int s = shape.stride;
    const EntriesOf<Entry> entries(slices, bands.rows() * s + 2, shape.wide * s + 2);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(out, band.image, band.low, band.high);
    };
    const Share share(bands.count(), index, threads);
    bands.each(share, slices.count(), prepare, [&](int slice, Band band) {
      entries.fill(input, slice, band.image, band.low * s - 1, (band.high - band.low) * s + 2);
      const Piece<Entry> piece{shape, slices, band, slice,
                               weights.get() + slice * slices.weights()};
      band_outputs(piece, entries, out);
      if (!moments || slice + 1 < slices.count()) return;
      const int64_t first = (static_cast<int64_t>(band.image) * shape.high + band.low) * shape.wide;
      (*moments)[index].add(out.at(first), out.ld, (band.high - band.low) * shape.wide);
    });
  });
}

template <class Number, class Made>
inline void banded_forward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const MapsOf<Made>& out,
                           std::vector<Moments>* moments, int threads) {
  if constexpr (HAS_PAIRS<Number>)
    if (fits_pairs(shape))
      return banded_forward_by<PairEntry>(shape, input, weight, out, moments, threads);
  banded_forward_by<FloatEntry>(shape, input, weight, out, moments, threads);
}

// Where the gradients behind the ReLU of a tile's pixels go, `step` apart, and their sums.
template <int NV, class Writer>
struct InputsAt {
  const Writer* writers;  // of each vector
  int64_t pixel;
  int step;
  Vector (*sums)[2];  // of each vector, gradients and products

  InputsAt at(int x) const { return {writers, pixel + x * step, step, sums}; }
  template <int M>
  void start(Vector (&behind)[M][NV]) const {
    for (int r = 0; r < M; ++r)
      for (int v = 0; v < NV; ++v) behind[r][v] = Vector{};
  }
  template <int M>
  __attribute__((always_inline)) void write(const Vector (&behind)[M][NV]) const {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vector gradient = sums[v][0], product = sums[v][1];
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r)
        writers[v](pixel + static_cast<int64_t>(r) * step, behind[r][v], gradient, product);
      sums[v][0] = gradient, sums[v][1] = product;
    }
  }
};

template <int NV, class Writer>
inline InputsAt<NV, Writer> inputs_at(const Writer* writers, int64_t pixel, int step,
                                      Vector (*sums)[2]) {
  return {writers, pixel, step, sums};
}

// The taps that lead from outputs to the pixels (y, x · 2 + column) of the inputs, one to four.
// `entries` are of the outputs' gradient, from one row above and one column before on.
inline Taps leading_to(const Piece<FloatEntry>& of, int vector,
                       const EntriesOf<FloatEntry>& entries, int y, int x, int column) {
  Taps taps;
  for (int number = 0; number < 9; ++number) {
    const int down = y + 1 - number / 3, across = column + 1 - number % 3;
    if (down % 2 == 0 && across % 2 == 0)
      taps.add(entries.at(down / 2 - of.band.low + 1, x + across / 2 + 1),
               of.weights + of.slices.place(vector, 8 - number, 0));
  }
  return taps;
}

// A band's gradients of one slice's inputs: those of the rows that its outputs stand on. `entries`
// are of the outputs' gradient, from one row above on.
template <class Entry, class Number>
inline void band_inputs(const Piece<Entry>& of, const EntriesOf<Entry>& entries,
                        const MaskedOf<Number>& masked, Totals& totals) {
  const Shape& shape = of.shape;
  const int s = shape.stride, low = of.band.low * s;
  const int high = std::min(of.band.high * s, shape.height);
  const auto row_of = [&](int y) {
    return (static_cast<int64_t>(of.band.image) * shape.height + y) * shape.width;
  };
  each_vectors(of.slices, [&](auto vectors, int vector) {
    constexpr int NV = decltype(vectors)::value;
    const int c = of.channel(vector), second = NV > 1 ? c + LANES : c;
    const int wanted = of.wanted(vector);
    const auto write = masked.writer(c, first_lanes(wanted));
    const decltype(write) writers[] = {write, masked.writer(second, first_lanes(wanted - LANES))};
    Vector sums[NV][2] = {};
    if (s == 1)
      multiply_rows<Entry, NV, 1, false>(
          of, vector, entries, high - low, shape.width,
          [&](int row) { return inputs_at<NV>(writers, row_of(low + row), 1, sums); });
    else if constexpr (Entry::INPUTS == 1)
      for (int y = low; y < high; ++y)
        for (int column = 0; column < std::min(2, shape.width); ++column) {
          const int pixels = column ? shape.width / 2 : shape.wide;
          const int step = even_step(pixels, most_pixels(NV));
          for (int x = 0; x < pixels; x += step)
            tile_of_taps<NV>(of.slices, vector, leading_to(of, vector, entries, y, x, column),
                             of.slices.apart(), std::min(step, pixels - x),
                             inputs_at<NV>(writers, row_of(y) + 2 * x + column, 2, sums));
        }
    for (int v = 0; v < NV; ++v)
      totals.add(c + v * LANES, wanted - v * LANES, sums[v][0], sums[v][1]);
  });
}

// A band's part of a slice's weights' gradients, added to `sums`, which are laid out as weights
// are.
inline void band_weights(const Piece<FloatEntry>& of, const EntriesOf<FloatEntry>& inputs,
                         const EntriesOf<FloatEntry>& outputs, float* sums) {
  const Slices<FloatEntry>& slices = of.slices;
  const int s = of.shape.stride, high = of.band.high - of.band.low, wide = of.shape.wide;
  const int step = even_step(slices.entries, most_entries(slices.narrow));
  for (int v = 0; v < slices.vectors; ++v)
    for (int down = 0; down < 3; ++down)
      for (int first = 0; first < slices.entries; first += step) {
        const Field entries{inputs.at(down, 0) + (slices.narrow ? 0 : first), slices.apart(),
                            s * inputs.line()};
        const Field gradients{outputs.at(1, 0) + v * LANES, slices.apart(), outputs.line()};
        const auto add = [&](auto narrow, auto stride) {
          weights_tile_of<decltype(narrow)::value, decltype(stride)::value>(
              std::min(step, slices.entries - first), entries, slices.places.data() + first * LANES,
              gradients, high, wide, sums + slices.place(v, 3 * down, first), slices.entry_step(v),
              slices.column_step(v));
        };
        using One = std::integral_constant<int, 1>;
        using Two = std::integral_constant<int, 2>;
        if (slices.narrow)
          s == 1 ? add(std::true_type{}, One{}) : add(std::true_type{}, Two{});
        else
          s == 1 ? add(std::false_type{}, One{}) : add(std::false_type{}, Two{});
      }
}

// `Entry`: of the products that make the gradients of the inputs.
template <class Entry, class Number>
inline void banded_backward_by(const Shape& shape, const ActivationsOf<Number>& input,
                               const float* weight, const Corrected& gradient,
                               const MaskedOf<Number>& masked, float* weight_gradient,
                               const Sums& sums, int threads) {
  const Slices<FloatEntry> slices(shape);
  const Slices<Entry> turned(shape);
  const long size = slices.count() * slices.weights();
  const Floats weights = floats(turned.count() * turned.weights());
  const Banding bands(shape, input.maps.images, 4);
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    fill_slices(turned, weight, true, Share(turned.count(), index, threads), weights.get());
  });
  team.run(threads, [&](int index) {
    const int s = shape.stride;
    totals[index] = Totals(shape.inputs);
    parts[index] = floats(size);
    const EntriesOf<FloatEntry> inputs(slices, bands.rows() * s + 2, shape.wide * s + 2);
    const EntriesOf<FloatEntry> outputs(slices, bands.rows() + 2, shape.wide + 2);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(masked.into, band.image, band.low * s, band.high * s);
      fetch_rows(gradient, band.image, band.low - 1, band.high + 1);
    };
    const Share share(bands.count(), index, threads);
    bands.each(share, slices.count(), prepare, [&](int slice, Band band) {
      const int rows = band.high - band.low;
      inputs.fill(input, slice, band.image, band.low * s - 1, rows * s + 2);
      outputs.fill(gradient, slice, band.image, band.low - 1, rows + 2);
      const long place = slice * slices.weights();
      band_weights({shape, slices, band, slice, nullptr}, inputs, outputs,
                   parts[index].get() + place);
      const Piece<Entry> piece{shape, turned, band, slice,
                               weights.get() + slice * turned.weights()};
      if constexpr (std::is_same_v<Entry, FloatEntry>) {
        band_inputs(piece, outputs, masked, totals[index]);
      } else {
        const EntriesOf<Entry> read(turned, bands.rows() + 2, shape.wide + 2);
        read.fill(gradient, slice, band.image, band.low - 1, rows + 2);
        band_inputs(piece, read, masked, totals[index]);
      }
      if (slice + 1 == slices.count()) totals[index].fold();
    });
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    return_slices(slices, parts, Share(slices.count(), index, threads), weight_gradient);
  });
}

template <class Number>
inline void banded_backward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const Corrected& gradient,
                            const MaskedOf<Number>& masked, float* weight_gradient,
                            const Sums& sums, int threads) {
  auto pass = banded_backward_by<FloatEntry, Number>;
  if constexpr (HAS_PAIRS<Number>)
    if (shape.stride == 1 && fits_pairs(shape)) pass = banded_backward_by<PairEntry, Number>;
  pass(shape, input, weight, gradient, masked, weight_gradient, sums, threads);
}

}  // namespace densepath
