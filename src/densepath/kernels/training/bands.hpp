// Grouped 3×3 convolutions of a training step, both ways, in bands of some rows of an image: slice
// by slice what a band reads is laid out as entries (see slices.hpp).
#pragma once

#include <vector>

#include "pixels.hpp"
#include "scratch.hpp"
#include "slices.hpp"

namespace densepath {

// Rows [low, high) of an image's outputs.
struct Band {
  int image, low, high;
};

// Bands small enough that what a pass reads and writes of them stays in the second-level cache.
class Banding {
 public:
  // `maps`: how many a pass reads and writes.
  Banding(const Shape& shape, int images, int maps) : images_(images), high_(shape.high) {
    const long row = static_cast<long>(shape.stride) * shape.width * shape.inputs * maps;
    const long rows = std::max(4L, FLOATS / row);
    bands_ = static_cast<int>((high_ + rows - 1) / rows);
    rows_ = (high_ + bands_ - 1) / bands_;
    together_ = static_cast<int>(std::max(1L, FLOATS / (row * rows_)));
  }
  int64_t count() const { return static_cast<int64_t>(images_) * bands_; }
  int rows() const { return rows_; }

  // prepare(band), and visit(slice, band), slice by slice of some bands at a time, so that a
  // slice's weights are fetched once for them all.
  template <class Prepare, class Visit>
  void each(Share share, int slices, const Prepare& prepare, const Visit& visit) const {
    for (int64_t first = share.low; first < share.high; first += together_) {
      const int64_t end = std::min(share.high, first + together_);
      for (int64_t b = first; b < end; ++b) prepare(band(b));
      for (int slice = 0; slice < slices; ++slice)
        for (int64_t b = first; b < end; ++b) visit(slice, band(b));
    }
  }

 private:
  static constexpr long FLOATS = 80000;
  Band band(int64_t number) const {
    const int low = static_cast<int>(number % bands_) * rows_;
    return {static_cast<int>(number / bands_), std::min(low, high_), std::min(low + rows_, high_)};
  }

  int images_, high_, bands_, rows_, together_;
};

// Asks for rows of a map in their order: slices read them in steps that no cache foresees.
inline void fetch_rows(const Maps& maps, int image, int low, int high) {
  const int64_t first = (static_cast<int64_t>(image) * maps.height + std::max(0, low)) * maps.width;
  const int64_t rows = std::min(high, maps.height) - std::max(0, low);
  for (int64_t pixel = first; pixel < first + rows * maps.width; ++pixel)
    for (int c = 0; c < maps.channels; c += 16) __builtin_prefetch(maps.at(pixel) + c);
}

// The entries of a slice's pixels: rows and columns of a map, with zeros outside.
struct Entries {
  const Slices& slices;
  int columns;
  Scratch data, plain;  // plain: of narrow slices, what the entries were made of

  Entries(const Slices& slices_, int rows, int columns_)
      : slices(slices_),
        columns(columns_),
        data(rows * columns * slices.apart()),
        plain(slices.narrow ? static_cast<size_t>(rows) * columns * LANES : 0) {}
  const float* at(int row, int column) const {
    return data.get() + (static_cast<long>(row) * columns + column) * slices.apart();
  }
  // Vectors of the slice's numbers, `plain_apart` between two pixels.
  const float* plain_at(int row, int column) const {
    return slices.narrow ? plain.get() + (static_cast<long>(row) * columns + column) * LANES
                         : at(row, column);
  }
  long plain_apart() const { return slices.narrow ? LANES : slices.apart(); }

  // Rows from `y` on, columns from −1 on.
  template <class Source>
  void fill(const Source& source, int slice, int image, int y, int rows) const {
    const Maps& maps = source.maps;
    for (int r = 0; r < rows; ++r) {
      const bool outside = y + r < 0 || y + r >= maps.height;
      const int inside = outside ? 0 : maps.width;
      zero(r, 0, 1);
      if (!outside) {
        const int64_t pixel = (static_cast<int64_t>(image) * maps.height + y + r) * maps.width;
        if (slices.narrow)
          fill_vectors(source, slice, pixel, r);
        else
          fill_numbers(source, slice, pixel, r);
      }
      zero(r, 1 + inside, columns);
    }
  }

 private:
  void zero(int row, int low, int high) const {
    std::memset(data.get() + (static_cast<long>(row) * columns + low) * slices.apart(), 0,
                sizeof(float) * (high - low) * slices.apart());
    if (slices.narrow)
      std::memset(plain.get() + (static_cast<long>(row) * columns + low) * LANES, 0,
                  sizeof(float) * (high - low) * LANES);
  }

  template <class Source>
  void fill_vectors(const Source& source, int slice, int64_t pixel, int row) const {
    const int c = slices.first(slice), left = slices.channels - c;
    float* to = data.get() + (static_cast<long>(row) * columns + 1) * slices.apart();
    float* vector = plain.get() + (static_cast<long>(row) * columns + 1) * LANES;
    for (int x = 0; x < source.maps.width; ++x, vector += LANES) {
      const Vector numbers = source.read(pixel + x, c, left);
      store(vector, numbers);
      for (int i = 0; i < slices.width; ++i, to += LANES)
        store(to, spread_lanes(numbers, slices.places.data() + i * LANES));
    }
  }

  // The last vectors first: what they write beyond their pixel, the others overwrite.
  template <class Source>
  void fill_numbers(const Source& source, int slice, int64_t pixel, int row) const {
    for (int v = slices.vectors - 1; v >= 0; --v) {
      const int c = slices.first(slice) + v * LANES, left = slices.channels - c;
      float* to = data.get() + (static_cast<long>(row) * columns + 1) * slices.apart() + v * LANES;
      for (int x = 0; x < source.maps.width; ++x, to += slices.width)
        store(to, source.read(pixel + x, c, left));
    }
  }
};

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
#pragma GCC unroll 3
    for (int v = 0; v < NV; ++v) write(r, v, sums[r][v]);
}

// visit<NV>(first vector) of all of a slice's vectors of outputs.
template <class Visit>
inline void each_vectors(const Slices& slices, const Visit& visit) {
  for (int v = 0; v < slices.vectors;) {
    const int count = Slices::abreast(slices.vectors - v);
    if (count == 1)
      visit(std::integral_constant<int, 1>(), v);
    else if (count == 2)
      visit(std::integral_constant<int, 2>(), v);
    else
      visit(std::integral_constant<int, 3>(), v);
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
    Taps taps{{}, {}, 3 * slices.width};
    for (int down = 0; down < 3; ++down)
      taps.add(entries.at(row + down, column), tap(vector, 3 * down));
    return taps;
  }

  // Those that lead from outputs to pixel (y, x · stride + column) of the inputs.
  Taps leading_to(int vector, const Entries& entries, int y, int x, int column) const {
    const int s = shape.stride;
    if (s == 1) return whole_rows(vector, entries, y - band.low, x);
    Taps taps{{}, {}, slices.width};
    for (int number = 0; number < 9; ++number) {
      const int down = y + 1 - number / 3, across = column + 1 - number % 3;
      if (down % s == 0 && across % s == 0)
        taps.add(entries.at(down / s - band.low + 1, x + across / s + 1), tap(vector, 8 - number));
    }
    return taps;
  }
};

// A band's outputs of one slice. What is written beyond them, the next slice overwrites.
template <int NV>
inline void band_outputs(const Piece& of, int first, const Entries& entries, const Maps& out) {
  const int s = of.shape.stride, wide = of.shape.wide, step = even_step(wide, most_pixels(NV));
  const int c = of.channel(first), left = of.slices.channels - c;
  for (int y = of.band.low; y < of.band.high; ++y)
    for (int x = 0; x < wide; x += step) {
      const Taps taps = of.whole_rows(first, entries, (y - of.band.low) * s, x * s);
      float* to = out.at((static_cast<int64_t>(of.band.image) * of.shape.high + y) * wide + x) + c;
      taps_of<NV>(of.slices, std::min(step, wide - x), taps, s * of.slices.apart(),
                  [&](int r, int v, Vector sum) {
                    if (left > v * LANES)
                      store_some(to + r * out.ld + v * LANES, sum, left - v * LANES);
                  });
    }
}

inline void banded_forward(const Shape& shape, const Activations& input, const float* weight,
                           const Maps& out, std::vector<Moments>* moments, int threads) {
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
template <int NV>
inline void band_inputs(const Piece& of, int first, const Entries& entries, const Masked& masked,
                        Totals& totals) {
  const Shape& shape = of.shape;
  const int s = shape.stride, step = even_step(shape.wide, most_pixels(NV));
  const int pixels[] = {shape.wide, shape.width / 2};  // of even and of odd columns
  const int c = of.channel(first), wanted = of.slices.outputs(of.slice) - first * LANES;
  Places lanes[NV];
  for (int v = 0; v < NV; ++v) lanes[v] = first_lanes(wanted - v * LANES);
  Vector gradient[NV] = {}, product[NV] = {};
  for (int y = of.band.low * s; y < std::min(of.band.high * s, shape.height); ++y)
    for (int column = 0; column < std::min(s, shape.width); ++column)
      for (int x = 0; x < pixels[column]; x += step) {
        const Taps taps = of.leading_to(first, entries, y, x, column);
        const int64_t row = static_cast<int64_t>(of.band.image) * shape.height + y;
        const int64_t pixel = row * shape.width + x * s + column;
        taps_of<NV>(of.slices, std::min(step, pixels[column] - x), taps, of.slices.apart(),
                    [&](int r, int v, Vector behind) {
                      masked.write(pixel + r * s, c + v * LANES, lanes[v], behind, gradient[v],
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

inline void banded_backward(const Shape& shape, const Activations& input, const float* weight,
                            const Corrected& gradient, const Masked& masked, float* weight_gradient,
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
      fetch_rows(gradient.maps, band.image, band.low - 1, band.high + 1);
      if (gradient.constant) fetch_rows(gradient.y, band.image, band.low - 1, band.high + 1);
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
