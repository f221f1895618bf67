// Grouped 3×3 convolutions in slices: of narrow groups as many as fit into a vector, where lanes
// can be permuted, else one.
//
// A pixel of a slice is its channels' numbers, or pairs of them in bfloat16 (see grouped_tile.hpp).
#pragma once

#include <vector>

#include "../grouped_pairs.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

// Groups as wide in their inputs as in their outputs, in such entries, all of which are full.
template <class Entry>
struct Slices {
  int width, entries, channels;  // channels of a group, and its entries; channels of all
  bool narrow;
  int together;                 // channels of a slice, but perhaps of the last
  int vectors;                  // of a slice's outputs
  std::vector<int32_t> places;  // [entries, LANES]: where a narrow slice's outputs find theirs

  explicit Slices(const Shape& shape)
      : width(shape.group_inputs()),
        entries(width / Entry::INPUTS),
        channels(shape.inputs),
        narrow(PERMUTES && 2 * width <= LANES),
        together(narrow ? LANES / width * width : width),
        vectors((together + LANES - 1) / LANES),
        places(entries * LANES) {
    for (int i = 0; narrow && i < entries; ++i)
      for (int lane = 0; lane < together; ++lane)
        places[i * LANES + lane] = lane / width * entries + i;
  }
  int count() const { return (channels + together - 1) / together; }
  int first(int slice) const { return slice * together; }
  int outputs(int slice) const { return std::min(together, channels - first(slice)); }
  long apart() const { return narrow ? LANES : entries; }  // from one pixel to the next, in entries

  // Floats of a slice's weights: by one or two vectors [3 rows, entries, 3 columns, vectors,
  // LANES].
  long weights() const { return 9L * entries * vectors * LANES; }
  // The vectors that stand together with this one.
  int abreast(int vector) const { return std::min(2, vectors - vector / 2 * 2); }
  // Where those of a vector of outputs, a tap and an entry are.
  long place(int vector, int tap, int entry) const {
    const long before = vector / 2 * 2 * 9L * entries + vector % 2;
    return before * LANES + tap / 3 * row_step(vector) + entry * entry_step(vector) +
           tap % 3 * column_step(vector);
  }
  long row_step(int vector) const { return entries * entry_step(vector); }
  long entry_step(int vector) const { return 3 * column_step(vector); }
  long column_step(int vector) const { return static_cast<long>(abreast(vector)) * LANES; }
};

// Whether a convolution can be computed in slices.
inline bool fits_slices(const Shape& shape) {
  return shape.groups > 1 && shape.inputs == shape.outputs;
}

// Whether maps of these numbers are multiplied in pairs: where the processor does, and groups are
// made of them.
template <class Number>
constexpr bool HAS_PAIRS = HAS_BFLOAT16 && std::is_same_v<Number, BFloat16>;
inline bool fits_pairs(const Shape& shape) { return shape.group_inputs() % 2 == 0; }

// visit(output, input of its group, tap, place of the weight's entry): for all weights of a
// thread's slices.
template <class Entry, class Visit>
inline void each_weight(const Slices<Entry>& slices, Share share, const Visit& visit) {
  for (int s = static_cast<int>(share.low); s < share.high; ++s)
    for (int k = 0; k < slices.outputs(s); ++k) {
      const int vector = k / LANES;
      const long first = s * slices.weights() + slices.place(vector, 0, 0) + k % LANES;
      for (int i = 0; i < slices.width; ++i) {
        const long entry = first + i / Entry::INPUTS * slices.entry_step(vector);
        for (int tap = 0; tap < 9; ++tap)
          visit(slices.first(s) + k, i, tap,
                entry + tap / 3 * slices.row_step(vector) + tap % 3 * slices.column_step(vector));
      }
    }
}

// A thread's part of the weights, from [outputs, width, 3, 3]; `turned`, also the taps, for the
// gradients of the inputs, whose sums are over the outputs.
template <class Entry>
inline void fill_slices(const Slices<Entry>& slices, const float* weight, bool turned, Share share,
                        float* to) {
  const int width = slices.width;
  each_weight(slices, share, [&](int channel, int i, int tap, long place) {
    const int group = channel / width * width, inside = channel % width;
    const long row = turned ? (group + i) * width + inside : channel * width + i;
    Entry::set_one(to + place, weight[9 * row + (turned ? 8 - tap : tap)], i % Entry::INPUTS);
  });
}

// A thread's part of the weights' gradients, of the sums of all threads, in their order.
inline void return_slices(const Slices<FloatEntry>& slices, const std::vector<Floats>& sums,
                          Share share, float* to) {
  each_weight(slices, share, [&](int channel, int i, int tap, long place) {
    float sum = 0;
    for (const Floats& thread : sums) sum += thread[place];
    to[(static_cast<long>(channel) * slices.width + i) * 9 + tap] = sum;
  });
}

}  // namespace densepath
