// The tile of 3×3 convolutions in groups: pixels of a row that are computed together, from what
// lies in a padded map.
//
// The map holds entries: single inputs, pairs of them in bfloat16 (grouped_pairs.hpp), or four
// levels (int8_grouped.hpp), each group's from a new one on, so that an entry's products are of one
// group. Of narrow groups a vector of outputs spans several, and one shuffle puts the i-th entry of
// each group beside the group's outputs; of the others every output takes the same entry. What is
// read of a column serves the three pixels that it lies under.
#pragma once

#include <type_traits>

#include "lanes.hpp"

namespace densepath {

// Entries of one input: what `grouped_pairs.hpp` has for those of two, `int8_grouped.hpp` of four.
struct FloatEntry {
  typedef float Unit;  // an entry in the map
  typedef Vector Lanes, Sums;
  static constexpr int INPUTS = 1;
  static Vector read(const float* p) { return load(p); }
  static Vector spread(const float* p) { return splat(*p); }
  static Vector add(Vector sums, Vector left, Vector right) { return sums + left * right; }
  static void set(float* lanes, Vector weights, int) { store(lanes, weights); }
  static void set_one(float* lane, float weight, int) { *lane = weight; }
  static void keep(float* to, Vector inputs) { store(to, inputs); }
  static void place(const float* from, float* to, int inputs, int) {
    std::memcpy(to, from, sizeof(float) * inputs);
  }
};

// Of one or two vectors of outputs: [3 rows, entries of a group, 3 columns, vectors, LANES]; and,
// of narrow groups, where each output's entries stand in a vector, [entries of a group, LANES].
struct GroupedWeights {
  const float* weights;
  const int32_t* places;
};

// Where a tile reads, in entries: `corner` is the first pixel's upper left one, `step` lies between
// two pixels, `line` between two rows, `ld` between two columns.
template <class Unit>
struct WindowOf {
  const Unit* corner;
  long step, line, ld;
};

// Where it writes plainly: the first pixel's outputs, `step` between two pixels, `columns` of them.
template <class Number>
struct TargetOf {
  Number* to;
  long step;
  int columns;
  const float* bias;
  bool relu;

  TargetOf at(int pixel) const { return {to + pixel * step, step, columns, bias, relu}; }
  template <int M, int NV>
  void start(Vector (&sums)[M][NV]) const {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sums[r][v] = bias ? load(bias + v * LANES) : Vector{};
  }
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

// Pixels of a row that are computed together at most, each with so many vectors of sums: three more
// registers a vector are for weights, and one for an entry.
constexpr int most_abreast(int vectors) { return MR == 14 ? 14 / vectors : vectors == 1 ? 10 : 4; }

// tile(constant, x) computes the pixels [x, x + constant): tiles of M pixels and less, until all of
// `width` are covered; if `AGAIN`, the last covers what lies before it once more where that costs
// less.
template <int M, bool AGAIN = true, class Tile>
inline void cover(int x, int width, const Tile& tile) {
  for (; width - x >= M; x += M) tile(std::integral_constant<int, M>{}, x);
  if constexpr (M > 1) {
    if (x == width) return;
    if (AGAIN && width >= M && width - x > M / 2)
      return tile(std::integral_constant<int, M>{}, width - M);
    cover<M / 2, AGAIN>(x, width, tile);
  }
}

// M pixels of a row, so many entries a group. `in.step` is STRIDE · `in.ld`. `out` begins with its
// sums, and takes what has become of them.
template <class Entry, int M, int NV, int STRIDE, bool NARROW, class Target>
__attribute__((noinline)) void grouped_tile(GroupedWeights slice, int entries,
                                            WindowOf<typename Entry::Unit> in, Target out) {
  using Lanes = typename Entry::Lanes;
  using Unit = typename Entry::Unit;
  typename Entry::Sums sums[M][NV];
  out.start(sums);
  const float* weights = slice.weights;
  const Unit* line = in.corner;
  for (int n = 3 * entries, i = 0; n > 0; --n, weights += 3 * NV * LANES) {
    const Unit* from = line + (NARROW ? 0 : i);
    Places places{};
    if constexpr (NARROW) places = *reinterpret_cast<const Places*>(slice.places + i * LANES);
    Lanes right[3][NV];
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) right[tap][v] = Entry::read(weights + (tap * NV + v) * LANES);
#pragma GCC unroll 32
    for (int x = 0; x < (M - 1) * STRIDE + 3; ++x) {
      Lanes left;
      if constexpr (NARROW)
        left = permute(Entry::read(from + x * in.ld), places);
      else
        left = Entry::spread(from + x * in.ld);
#pragma GCC unroll 3
      for (int tap = 0; tap < 3; ++tap)
        if (const int under = x - tap; under >= 0 && under % STRIDE == 0 && under / STRIDE < M) {
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v)
            sums[under / STRIDE][v] = Entry::add(sums[under / STRIDE][v], left, right[tap][v]);
        }
    }
    if (++i == entries) {
      i = 0;
      line += in.line;
    }
  }
  out.write(sums);
}

// A row of `width` pixels in tiles; out.at(x) takes those from pixel x on, if `AGAIN` some of them
// twice.
template <class Entry, int NV, int STRIDE, bool AGAIN = true, class Target>
inline void grouped_row(GroupedWeights weights, bool narrow, int entries, int width,
                        WindowOf<typename Entry::Unit> in, const Target& out) {
  const auto tiles = [&](auto is_narrow) {
    cover<most_abreast(NV), AGAIN>(0, width, [&](auto pixels, int x) {
      WindowOf<typename Entry::Unit> here = in;
      here.corner += x * in.step;
      grouped_tile<Entry, decltype(pixels)::value, NV, STRIDE, decltype(is_narrow)::value>(
          weights, entries, here, out.at(x));
    });
  };
  if constexpr (NV == 1)
    if (narrow) return tiles(std::true_type{});
  tiles(std::false_type{});
}

}  // namespace densepath
