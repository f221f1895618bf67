// 3×3 convolutions in groups, straight from the padded map: nothing is multiplied by zero, and
// nothing laid out.
//
// Of narrow groups a vector of outputs spans several. For the i-th input of each of them one
// shuffle of the inputs below puts it beside its outputs. Of groups that are whole vectors wide,
// each input is multiplied by one or two vectors of weights.
#pragma once

#include <utility>
#include <vector>

#include "matrix.hpp"

namespace densepath {

typedef int32_t Places __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// Lanes of two vectors by their place among both.
#if defined(__AVX512F__)
constexpr bool SHUFFLES = true;
inline Vector shuffle(Vector low, Vector high, Places places) {
  return (Vector)_mm512_permutex2var_ps((__m512)low, (__m512i)places, (__m512)high);
}
#elif defined(__GNUC__) && !defined(__clang__)
constexpr bool SHUFFLES = true;
inline Vector shuffle(Vector low, Vector high, Places places) {
  return __builtin_shuffle(low, high, places);
}
#else
constexpr bool SHUFFLES = false;
inline Vector shuffle(Vector low, Vector, Places) { return low; }
#endif

// One vector of outputs; or two, of one group.
struct GroupedSlice {
  int first_input, first_output;
  int vectors;
  std::vector<int32_t> places;  // [inputs of a group, LANES]: among two vectors from first_input on
  Floats weights;               // [9, inputs of a group, vectors]
};

// Pixels of a row that are computed together: 7 divides the sides of the maps of 224 × 224 images.
constexpr int ABREAST = LANES == 16 ? 7 : 3;

// Whether outputs lie in groups of a width that this file is for.
inline bool is_grouped(int inputs, int outputs, int groups) {
  const int width = inputs / groups;
  return inputs == outputs && groups > 1 && (width < LANES ? SHUFFLES : width % LANES == 0);
}

// `taps` [3, 3, width, outputs] of groups that are `width` wide.
inline std::vector<GroupedSlice> slice_groups(const float* taps, int outputs, int width) {
  std::vector<GroupedSlice> made;
  const int vectors = width % (2 * LANES) == 0 ? 2 : 1, together = vectors * LANES;
  for (int j = 0; j < outputs; j += together) {
    GroupedSlice slice{j / width * width, j, vectors, std::vector<int32_t>(width * together), {}};
    slice.weights = floats(static_cast<size_t>(9) * width * together);
    for (int i = 0; i < width; ++i)
      for (int lane = 0; lane < together && j + lane < outputs; ++lane) {
        slice.places[i * together + lane] = (j + lane) / width * width + i - slice.first_input;
        for (int tap = 0; tap < 9; ++tap)
          slice.weights[(tap * width + i) * together + lane] =
              taps[(static_cast<size_t>(tap) * width + i) * outputs + j + lane];
      }
    made.push_back(std::move(slice));
  }
  return made;
}

// Where a tile reads: `corner` is the first pixel's upper left input, `step` lies between two
// pixels, `line` between two rows, `ld` between two columns.
struct Window {
  const float* corner;
  long step, line, ld;
  const float* tap(int number) const { return corner + number / 3 * line + number % 3 * ld; }
};

// Where it writes: the first pixel's outputs, `step` between two pixels, `columns` of them.
template <class Number>
struct TargetOf {
  Number* to;
  long step;
  int columns;
  const float* bias;
  bool relu;
  template <int M, int NV>
  void write(const Vector (&sums)[M][NV]) const {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v)
        if (const int wanted = columns - v * LANES; wanted > 0)
          store_some(to + r * step + v * LANES, relu ? densepath::relu(sums[r][v]) : sums[r][v],
                     wanted);
  }
};

using Target = TargetOf<float>;

template <int M, int NV>
inline void start_sums(Vector (&sums)[M][NV], const float* bias) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sums[r][v] = bias ? load(bias + v * LANES) : Vector{};
}

// M pixels of narrow groups.
template <int M>
inline void narrow_tile(const GroupedSlice& slice, int width, Window in, Target out) {
  Vector sums[M][1];
  start_sums(sums, out.bias);
  const float* weights = slice.weights.get();
  for (int tap = 0; tap < 9; ++tap) {
    const float* from = in.tap(tap);
    Vector low[M], high[M];
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
      low[r] = load(from + r * in.step);
      high[r] = load(from + r * in.step + LANES);
    }
    for (int i = 0; i < width; ++i, weights += LANES) {
      const Places places = *reinterpret_cast<const Places*>(slice.places.data() + i * LANES);
      const Vector weight = load(weights);
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) sums[r][0] += weight * shuffle(low[r], high[r], places);
    }
  }
  out.write(sums);
}

// M pixels of a group that is NV vectors wide, or has more than one such slice.
template <int M, int NV>
inline void wide_tile(const GroupedSlice& slice, int width, Window in, Target out) {
  Vector sums[M][NV];
  start_sums(sums, out.bias);
  const float* weights = slice.weights.get();
  for (int tap = 0; tap < 9; ++tap) {
    const float* from = in.tap(tap);
    for (int i = 0; i < width; ++i, weights += NV * LANES) {
      Vector right[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) right[v] = load(weights + v * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const Vector left = splat(from[r * in.step + i]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[r][v] += left * right[v];
      }
    }
  }
  out.write(sums);
}

template <int M = ABREAST>
inline void grouped_tile(int pixels, const GroupedSlice& slice, int width, Window in, Target out) {
  if constexpr (M > 1)
    if (pixels < M) return grouped_tile<M - 1>(pixels, slice, width, in, out);
  if (width < LANES)
    narrow_tile<M>(slice, width, in, out);
  else if (slice.vectors == 1)
    wide_tile<M, 1>(slice, width, in, out);
  else
    wide_tile<M, 2>(slice, width, in, out);
}

}  // namespace densepath
