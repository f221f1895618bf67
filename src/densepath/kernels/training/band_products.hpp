// A band of one slice of a grouped 3×3 convolution, and the products of its rows.
#pragma once

#include "band_entries.hpp"
#include "slice_tiles.hpp"

namespace densepath {

// The largest step of at most M that takes `total` in as few.
inline int even_step(int total, int most) {
  const int steps = (total + most - 1) / most;
  return (total + steps - 1) / steps;
}

// visit(constant, first vector) of all of a slice's vectors of outputs, one or two at a time.
template <class Entry, class Visit>
inline void each_vectors(const Slices<Entry>& slices, const Visit& visit) {
  for (int v = 0; v < slices.vectors; v += 2)
    if (slices.abreast(v) == 1)
      visit(std::integral_constant<int, 1>(), v);
    else
      visit(std::integral_constant<int, 2>(), v);
}

// A band of one slice of a pass, with its weights.
template <class Entry>
struct Piece {
  const Shape& shape;
  const Slices<Entry>& slices;
  Band band;
  int slice;
  const float* weights;

  int channel(int vector) const { return slices.first(slice) + vector * LANES; }
  // The channels from a vector on that are the slice's.
  int wanted(int vector) const { return slices.outputs(slice) - vector * LANES; }
};

// The pixels of a tile of taps of so many vectors of outputs: what the registers hold.
constexpr int most_pixels(int vectors) { return LANES == 16 || vectors == 1 ? 8 : 12 / vectors; }

// `target` takes the sums of some pixels, M at most, by these taps; `step` lies between two pixels.
template <int NV, int M = most_pixels(NV), class Target>
inline void tile_of_taps(const Slices<FloatEntry>& slices, int vector, const Taps& taps, long step,
                         int pixels, const Target& target) {
  if constexpr (M > 1)
    if (pixels < M) return tile_of_taps<NV, M - 1>(slices, vector, taps, step, pixels, target);
  if (NV == 1 && slices.narrow)
    taps_tile<true, M, NV>(slices, vector, taps, step, target);
  else
    taps_tile<false, M, NV>(slices, vector, taps, step, target);
}

// As `multiply_rows`, tap by tap.
template <int NV, int STRIDE, class TargetOf>
inline void multiply_by_taps(const Piece<FloatEntry>& of, int vector,
                             const EntriesOf<FloatEntry>& entries, int rows, int wide,
                             const TargetOf& target_of) {
  const int step = even_step(wide, most_pixels(NV));
  for (int row = 0; row < rows; ++row)
    for (int x = 0; x < wide; x += step) {
      Taps taps;
      for (int tap = 0; tap < 9; ++tap)
        taps.add(entries.at(row * STRIDE + tap / 3, x * STRIDE + tap % 3),
                 of.weights + of.slices.place(vector, tap, 0));
      tile_of_taps<NV>(of.slices, vector, taps, STRIDE * of.slices.apart(),
                       std::min(step, wide - x), target_of(row).at(x));
    }
}

// Rows of NV vectors of outputs, from `vector` on, whose upper left entries are those of `entries`:
// `wide` pixels each. target_of(row) takes what is computed of a row, if `AGAIN` some of it twice.
template <class Entry, int NV, int STRIDE, bool AGAIN, class TargetOf>
inline void multiply_rows(const Piece<Entry>& of, int vector, const EntriesOf<Entry>& entries,
                          int rows, int wide, const TargetOf& target_of) {
  const Slices<Entry>& slices = of.slices;
  // Of 16 registers the tile's three weights a vector leave sums of too few pixels.
  if constexpr (MR < 14 && Entry::INPUTS == 1)
    if (!slices.narrow)
      return multiply_by_taps<NV, STRIDE>(of, vector, entries, rows, wide, target_of);
  const long apart = slices.apart();
  const GroupedWeights weights{of.weights + slices.place(vector, 0, 0), slices.places.data()};
  for (int row = 0; row < rows; ++row)
    grouped_row<Entry, NV, STRIDE, AGAIN>(
        weights, slices.narrow, slices.entries, wide,
        {entries.at(row * STRIDE, 0), STRIDE * apart, entries.line(), apart}, target_of(row));
}

}  // namespace densepath
