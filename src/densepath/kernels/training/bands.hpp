// Grouped 3×3 convolutions of a training step, both ways, in bands of some rows of an image: slice
// by slice what a band reads is laid out as entries (see slices.hpp).
#pragma once

#include <vector>

#include "pixels.hpp"
#include "slices.hpp"

namespace densepath {

// Rows [low, high) of an image's outputs.
struct Band {
  int image, low, high;
};

// Bands small enough that what they read stays in the second-level cache.
class Banding {
 public:
  Banding(const Shape& shape, int images) : images_(images), high_(shape.high) {
    const long row = static_cast<long>(shape.stride) * shape.width * shape.inputs;
    const int rows = static_cast<int>(std::max(4L, 64000 / row));
    bands_ = (high_ + rows - 1) / rows;
    rows_ = (high_ + bands_ - 1) / bands_;
  }
  int64_t count() const { return static_cast<int64_t>(images_) * bands_; }
  int rows() const { return rows_; }
  Band band(int64_t number) const {
    const int low = static_cast<int>(number % bands_) * rows_;
    return {static_cast<int>(number / bands_), std::min(low, high_), std::min(low + rows_, high_)};
  }

 private:
  int images_, high_, bands_, rows_;
};

// The entries of a slice's pixels: rows and columns of a map, with zeros outside.
struct Entries {
  const Slices& slices;
  int columns;
  Floats data, plain;  // plain: of narrow slices, what the entries were made of

  Entries(const Slices& slices_, int rows, int columns_)
      : slices(slices_),
        columns(columns_),
        data(unset(rows * columns * slices.apart())),
        plain(slices.narrow ? unset(static_cast<size_t>(rows) * columns * LANES) : nullptr) {}
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

// taps_tile of `pixels` pixels, of which write(number, vector) has the results.
template <int M = 8, class Write>
inline void taps_of(const Slices& slices, int pixels, const Taps& taps, long step,
                    const Write& write) {
  if constexpr (M > 1)
    if (pixels < M) return taps_of<M - 1>(slices, pixels, taps, step, write);
  Vector sums[M];
  if (slices.narrow)
    taps_tile<true, M>(taps, slices.width, step, sums);
  else
    taps_tile<false, M>(taps, slices.width, step, sums);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) write(r, sums[r]);
}

// A band's outputs of one slice. What is written beyond them, the next slice overwrites.
inline void band_forward(const Shape& shape, const Slices& slices, int slice, const Band& band,
                         const Entries& entries, const float* weights, const Maps& out) {
  const int s = shape.stride, step = even_step(shape.wide, 8);
  for (int v = 0; v < slices.vectors; ++v, weights += 9L * slices.width * LANES)
    for (int y = band.low; y < band.high; ++y)
      for (int x = 0; x < shape.wide; x += step) {
        const int pixels = std::min(step, shape.wide - x);
        Taps taps;
        for (int tap = 0; tap < 9; ++tap)
          taps.add(entries.at((y - band.low) * s + tap / 3, x * s + tap % 3),
                   weights + static_cast<long>(tap) * slices.width * LANES);
        const int64_t pixel = (static_cast<int64_t>(band.image) * shape.high + y) * shape.wide + x;
        const int c = slices.first(slice) + v * LANES;
        float* to = out.at(pixel) + c;
        taps_of(slices, pixels, taps, s * slices.apart(),
                [&](int r, Vector sum) { store_some(to + r * out.ld, sum, slices.channels - c); });
      }
}

inline void banded_forward(const Shape& shape, const Activations& input, const float* weight,
                           const Maps& out, int threads) {
  const Slices slices(shape);
  const Floats weights = floats(slices.count() * slices.weights());
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    fill_slices(slices, weight, false, Share(slices.count(), index, threads), weights.get());
  });
  const Banding bands(shape, out.images);
  team.run(threads, [&](int index) {
    const int s = shape.stride;
    const Entries entries(slices, bands.rows() * s + 2, shape.wide * s + 2);
    const Share share(bands.count(), index, threads);
    for (int64_t b = share.low; b < share.high; ++b) {
      const Band band = bands.band(b);
      for (int slice = 0; slice < slices.count(); ++slice) {
        entries.fill(input, slice, band.image, band.low * s - 1, (band.high - band.low) * s + 2);
        band_forward(shape, slices, slice, band, entries, weights.get() + slice * slices.weights(),
                     out);
      }
    }
  });
}

// A band's gradients of one slice's inputs: those of the rows that its outputs stand on. `entries`
// are of the outputs' gradient, from one row above on.
inline void band_inputs(const Shape& shape, const Slices& slices, int slice, const Band& band,
                        const Entries& entries, const float* weights, const Masked& masked,
                        Totals& totals) {
  const int s = shape.stride, wanted = slices.outputs(slice), step = even_step(shape.wide, 8);
  const int wide[] = {shape.wide, shape.width / 2};  // pixels of even and of odd columns
  for (int v = 0; v < slices.vectors; ++v, weights += 9L * slices.width * LANES) {
    const int c = slices.first(slice) + v * LANES, left = wanted - v * LANES;
    const Places lanes = first_lanes(left);
    Vector gradient{}, product{};
    for (int y = band.low * s; y < std::min(band.high * s, shape.height); ++y)
      for (int column = 0; column < std::min(s, shape.width); ++column)
        for (int x = 0; x < wide[column]; x += step) {
          const int pixels = std::min(step, wide[column] - x);
          Taps taps;
          for (int tap = 0; tap < 9; ++tap) {
            const int down = y + 1 - tap / 3, across = column + 1 - tap % 3;
            if (down % s == 0 && across % s == 0)
              taps.add(entries.at(down / s - band.low + 1, x + across / s + 1),
                       weights + static_cast<long>(tap) * slices.width * LANES);
          }
          const int64_t row = static_cast<int64_t>(band.image) * shape.height + y;
          const int64_t pixel = row * shape.width + x * s + column;
          taps_of(slices, pixels, taps, slices.apart(), [&](int r, Vector behind) {
            masked.write(pixel + r * s, c, lanes, behind, gradient, product);
          });
        }
    totals.add(c, left, gradient, product);
  }
}

// A band's part of a slice's weights' gradients, added to `sums`.
inline void band_weights(const Shape& shape, const Slices& slices, const Band& band,
                         const Entries& inputs, const Entries& outputs, float* sums) {
  const int s = shape.stride, row = 3 * slices.width;  // entries of three neighbouring taps
  const int step = even_step(row, 12);
  for (int v = 0; v < slices.vectors; ++v)
    for (int down = 0; down < 3; ++down, sums += row * LANES)
      for (int first = 0; first < row; first += step) {
        const int count = std::min(step, row - first);
        for (int y = 0; y < band.high - band.low; ++y) {
          const float* entries = inputs.at(y * s + down, 0) + first * slices.entry();
          const float* gradients = outputs.plain_at(y + 1, 1) + v * LANES;
          const long step = s * slices.apart(), apart = outputs.plain_apart();
          float* to = sums + first * LANES;
          if (slices.narrow)
            weights_tile_of<true>(count, entries, step, gradients, apart, shape.wide, to);
          else
            weights_tile_of<false>(count, entries, step, gradients, apart, shape.wide, to);
        }
      }
}

inline void banded_backward(const Shape& shape, const Activations& input, const float* weight,
                            const Corrected& gradient, const Masked& masked, float* weight_gradient,
                            const Sums& sums, int threads) {
  const Slices slices(shape);
  const long size = slices.count() * slices.weights();
  const Floats weights = floats(size);
  const Banding bands(shape, input.maps.images);
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
    const Share share(bands.count(), index, threads);
    for (int64_t b = share.low; b < share.high; ++b) {
      const Band band = bands.band(b);
      for (int slice = 0; slice < slices.count(); ++slice) {
        const long place = slice * slices.weights();
        const int rows = band.high - band.low;
        inputs.fill(input, slice, band.image, band.low * s - 1, rows * s + 2);
        outputs.fill(gradient, slice, band.image, band.low - 1, rows + 2);
        band_weights(shape, slices, band, inputs, outputs, parts[index].get() + place);
        band_inputs(shape, slices, slice, band, outputs, weights.get() + place, masked,
                    totals[index]);
      }
      totals[index].fold();
    }
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    return_slices(slices, parts, Share(slices.count(), index, threads), weight_gradient);
  });
}

}  // namespace densepath
