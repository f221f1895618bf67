// Products of operands that are read where they stand, for the passes of a training step: weights
// change with every step, and packing them would take as long as multiplying.
#pragma once

#include "../matrix.hpp"

namespace densepath {

// The left operand of a product: rows `apart`, or, turned, columns `apart`.
struct Left {
  const float* data;
  long apart;
  bool turned = false;
  const float* at(int row, int column) const {
    return data + (turned ? row + column * apart : row * apart + column);
  }
};

// A matrix of rows `apart` whose columns are read by whole vectors.
struct Rows {
  const float* data;
  long apart;
};

struct Results {
  float* data;
  long apart;
  bool add;
};

// c[M, NV vectors] (+)= a[M, count] · b[count, NV vectors]
template <int M, int NV, bool TURNED>
__attribute__((noinline)) void strided_tile(const float* a, long a_apart, const float* b,
                                            long b_apart, int count, Results c, int columns) {
  Vector sums[M][NV];
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sums[r][j] = Vector{};
  for (int k = 0; k < count; ++k, b += b_apart, a += TURNED ? a_apart : 1) {
    Vector right[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) right[j] = load(b + j * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      const Vector left = splat(a[TURNED ? r : r * a_apart]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sums[r][j] += left * right[j];
    }
  }
#pragma GCC unroll 2
  for (int j = 0; j < NV; ++j) {
    const int wanted = columns - j * LANES;
    if (wanted <= 0) break;
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float* to = c.data + r * c.apart + j * LANES;
      store_some(to, c.add ? sums[r][j] + load_some(to, wanted) : sums[r][j], wanted);
    }
  }
}

template <int NV, bool TURNED, int M = MR>
inline void strided_tile_of(int rows, const float* a, long a_apart, const float* b, long b_apart,
                            int count, Results c, int columns) {
  if (rows == M) return strided_tile<M, NV, TURNED>(a, a_apart, b, b_apart, count, c, columns);
  if constexpr (M > 1)
    strided_tile_of<NV, TURNED, M - 1>(rows, a, a_apart, b, b_apart, count, c, columns);
}

// c[rows, columns] (+)= a[rows, count] · b[count, columns]
template <bool TURNED>
inline void multiply_columns(Left a, Rows b, int rows, int count, int columns, Results c) {
  for (int j = 0; j < columns; j += PANEL) {
    const int here = std::min(PANEL, columns - j);
    for (int r = 0; r < rows; r += MR) {
      const int m = std::min(MR, rows - r);
      const Results to{c.data + r * c.apart + j, c.apart, c.add};
      if (here > LANES)
        strided_tile_of<2, TURNED>(m, a.at(r, 0), a.apart, b.data + j, b.apart, count, to, here);
      else
        strided_tile_of<1, TURNED>(m, a.at(r, 0), a.apart, b.data + j, b.apart, count, to, here);
    }
  }
}

// The same, KC terms of each sum at a time: what a tile reads stays in the first-level cache.
inline void multiply(Left a, Rows b, int rows, int count, int columns, Results c) {
  for (int first = 0; first < count; first += KC) {
    const int terms = std::min(KC, count - first);
    const Left left{a.at(0, first), a.apart, a.turned};
    const Rows right{b.data + first * b.apart, b.apart};
    const Results to{c.data, c.apart, c.add || first > 0};
    if (a.turned)
      multiply_columns<true>(left, right, rows, terms, columns, to);
    else
      multiply_columns<false>(left, right, rows, terms, columns, to);
  }
}

}  // namespace densepath
