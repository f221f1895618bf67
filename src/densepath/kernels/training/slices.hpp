// Grouped 3×3 convolutions in slices: of narrow groups as many as fit into a vector, else one.
//
// Every output of a slice is a sum over the entries of its pixels. An entry of a wide group is one
// number, of all outputs; of narrow groups a vector, in which each group's i-th number stands
// beside that group's outputs: made once a pixel, read by nine taps.
#pragma once

#include <vector>

#include "../lanes.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

// Groups as wide in their inputs as in their outputs.
struct Slices {
  int width, channels;  // of a group; of all
  bool narrow;
  int together;                 // channels of a slice, but perhaps of the last
  int vectors;                  // of a slice's outputs
  std::vector<int32_t> places;  // [width, LANES]: where a narrow slice's i-th entry comes from

  explicit Slices(const Shape& shape)
      : width(shape.group_inputs()),
        channels(shape.inputs),
        narrow(2 * width <= LANES),
        together(narrow ? LANES / width * width : width),
        vectors((together + LANES - 1) / LANES),
        places(width * LANES) {
    for (int i = 0; narrow && i < width; ++i)
      for (int lane = 0; lane < together; ++lane)
        places[i * LANES + lane] = lane / width * width + i;
  }
  static bool fit(const Shape& shape) { return shape.groups > 1 && shape.inputs == shape.outputs; }
  int count() const { return (channels + together - 1) / together; }
  int first(int slice) const { return slice * together; }
  int outputs(int slice) const { return std::min(together, channels - first(slice)); }
  int entry() const { return narrow ? LANES : 1; }                   // its floats
  long apart() const { return static_cast<long>(width) * entry(); }  // floats of a pixel
  // Floats of a slice's weights, [vectors, 9, width, LANES], and of one vector's.
  long weights() const { return vector_weights() * vectors; }
  long vector_weights() const { return 9L * width * LANES; }
};

// visit(slice, vector, lane, output, place of a lane's first weight): for all lanes in use.
template <class Visit>
inline void each_lane(const Slices& slices, Share share, const Visit& visit) {
  for (int s = static_cast<int>(share.low); s < share.high; ++s)
    for (int k = 0; k < slices.outputs(s); ++k)
      visit(slices.first(s) + k,
            s * slices.weights() + k / LANES * slices.vector_weights() + k % LANES);
}

// A thread's part of the weights, from [outputs, width, 3, 3]; `turned`, also the taps, for the
// gradients of the inputs, whose sums are over the outputs.
inline void fill_slices(const Slices& slices, const float* weight, bool turned, Share share,
                        float* to) {
  const int width = slices.width;
  each_lane(slices, share, [&](int channel, long place) {
    const long group = channel / width, inside = channel % width;
    for (int i = 0; i < width; ++i) {
      const float* from = weight + (turned ? (group * width + i) * width + inside
                                           : static_cast<long>(channel) * width + i) *
                                       9;
      for (int tap = 0; tap < 9; ++tap)
        to[place + (tap * width + i) * LANES] = from[turned ? 8 - tap : tap];
    }
  });
}

// A thread's part of the weights' gradients, of the sums of all threads, in their order.
inline void return_slices(const Slices& slices, const std::vector<Floats>& sums, Share share,
                          float* to) {
  const int width = slices.width;
  each_lane(slices, share, [&](int channel, long place) {
    for (int i = 0; i < width; ++i)
      for (int tap = 0; tap < 9; ++tap) {
        float sum = 0;
        for (const Floats& thread : sums) sum += thread[place + (tap * width + i) * LANES];
        to[(static_cast<long>(channel) * width + i) * 9 + tap] = sum;
      }
  });
}

// The taps of a tile: where each reads its first pixel's entries, and its weights. Taps that are
// neighbours in a row are one, of so many more entries.
struct Taps {
  const float *sources[9], *weights[9];
  int entries, count = 0;
  explicit Taps(int entries_) : entries(entries_) {}
  void add(const float* source, const float* weight) {
    sources[count] = source;
    weights[count++] = weight;
  }
};

template <bool NARROW>
inline __attribute__((always_inline)) Vector entry(const float* pixel, int number) {
  return NARROW ? load(pixel + number * LANES) : splat(pixel[number]);
}

// `v`, loaded once: a compiler else reads it from memory again at each use.
inline Vector in_register(Vector v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#endif
  return v;
}

// sums[M, NV] = NV vectors of outputs of M pixels, `step` apart; their weights `apart`.
template <bool NARROW, int M, int NV>
inline void taps_tile(const Taps& taps, long step, long apart, Vector (&sums)[M][NV]) {
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sums[r][v] = Vector{};
  for (int t = 0; t < taps.count; ++t) {
    const float *from = taps.sources[t], *weights = taps.weights[t];
    for (int i = 0; i < taps.entries; ++i, from += NARROW ? LANES : 1, weights += LANES) {
      Vector right[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) right[v] = in_register(load(weights + v * apart));
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const Vector left = entry<NARROW>(from + r * step, 0);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[r][v] += left * right[v];
      }
    }
  }
}

// Pixels in rows: `step` floats between two of a row, `line` between two rows.
struct Field {
  const float* data;
  long step, line;
};

// sums[M, LANES] += entries[pixels, M]ᵀ · outputs[pixels, LANES]
template <bool NARROW, int M>
inline void weights_tile(Field entries, Field outputs, int high, int wide, float* sums) {
  Vector held[M];
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i) held[i] = load(sums + i * LANES);
  for (int y = 0; y < high; ++y) {
    const float *from = entries.data + y * entries.line, *to = outputs.data + y * outputs.line;
    for (int x = 0; x < wide; ++x, from += entries.step, to += outputs.step) {
      const Vector gradient = load(to);
#pragma GCC unroll 12
      for (int i = 0; i < M; ++i) held[i] += entry<NARROW>(from, i) * gradient;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i) store(sums + i * LANES, held[i]);
}

template <bool NARROW, int M = 12>
inline void weights_tile_of(int count, Field entries, Field outputs, int high, int wide,
                            float* sums) {
  if (count == M) return weights_tile<NARROW, M>(entries, outputs, high, wide, sums);
  if constexpr (M > 1) weights_tile_of<NARROW, M - 1>(count, entries, outputs, high, wide, sums);
}

}  // namespace densepath
