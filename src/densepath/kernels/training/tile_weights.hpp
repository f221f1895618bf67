// The weights of 3×3 convolutions as F(4×4, 3×3) has them, and their gradients.
//
// With U = G g Gᵀ, V = Bᵀ d B and outputs Aᵀ (U ⊙ V) A, the gradient of the weights is
// Gᵀ (Σ V ⊙ (A dy Aᵀ)) G: 36 products again. Source: Lavin and Gray, arXiv:1509.09308, section 4.3,
// and the chain rule.
#pragma once

#include <vector>

#include "../winograd.hpp"
#include "scratch.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

// G g: three values of a row or column of the weights.
inline __attribute__((always_inline)) void transform_taps(const Vector g[3], Vector out[REACH]) {
  const Vector ends = (g[0] + g[2]) * (-1.0f / 6), middle = g[1] * (1.0f / 6);
  const Vector far = g[0] * (1.0f / 24) + g[2] * (1.0f / 6), half = g[1] * (1.0f / 12);
  out[0] = g[0] * 0.25f;
  out[1] = ends - middle;
  out[2] = ends + middle;
  out[3] = far + half;
  out[4] = far - half;
  out[5] = g[2];
}

// Gᵀ m: the gradient of three values of a row or column of the weights.
inline __attribute__((always_inline)) void return_taps(const Vector m[REACH], Vector out[3]) {
  const Vector near = (m[1] + m[2]) * (1.0f / 6), far = m[3] + m[4];
  out[0] = m[0] * 0.25f - near + far * (1.0f / 24);
  out[1] = (m[2] - m[1]) * (1.0f / 6) + (m[3] - m[4]) * (1.0f / 12);
  out[2] = far * (1.0f / 6) - near + m[5];
}

// A y: four values of a row or column of the outputs' gradient.
inline __attribute__((always_inline)) void spread_output(const Vector y[TILE], Vector out[REACH]) {
  const Vector even = y[0] + y[2], odd = y[1] + y[3];
  const Vector far = y[0] + 4.0f * y[2], twice = 2.0f * y[1] + 8.0f * y[3];
  out[0] = y[0];
  out[1] = even + odd;
  out[2] = even - odd;
  out[3] = far + twice;
  out[4] = far - twice;
  out[5] = y[3];
}

// For each of the 36 points a matrix [rows, columns]: of inputs and outputs, or, turned, the other
// way round, as the gradients of the inputs are made from those of the outputs.
struct TileWeights {
  int rows, columns;
  long padded, between;  // floats between two rows and between two points
  Scratch data;

  TileWeights(const Shape& shape, bool turned)
      : rows(turned ? shape.outputs : shape.inputs),
        columns(turned ? shape.inputs : shape.outputs),
        padded(round_up(columns, LANES)),
        between(rows * padded + 16),
        data(POINTS * between),
        turned_(turned) {}

  const float* point(int number) const { return data.get() + number * between; }

  // A thread's part, from `weight` [outputs, inputs, 3, 3].
  void fill(const float* weight, Share share) const {
    constexpr int TOGETHER = 16;
    const long inputs = turned_ ? columns : rows;
    const long row_step = turned_ ? inputs * 9 : 9, column_step = turned_ ? 9 : inputs * 9;
    float taps[TOGETHER * 9 * LANES] = {};
    for (long row = share.low; row < share.high; row += TOGETHER) {
      const long count = std::min<long>(TOGETHER, share.high - row);
      for (int j = 0; j < columns; j += LANES) {
        const int lanes = std::min(LANES, columns - j);
        for (long r = 0; r < count; ++r)
          for (int lane = 0; lane < lanes; ++lane) {
            const float* from = weight + (row + r) * row_step + (j + lane) * column_step;
            for (int t = 0; t < 9; ++t)
              taps[(r * 9 + (turned_ ? 8 - t : t)) * LANES + lane] = from[t];
          }
        for (long r = 0; r < count; ++r)
          transform(taps + r * 9 * LANES, data.get() + (row + r) * padded + j);
      }
    }
  }

 private:
  void transform(const float* taps, float* to) const {
    Vector half[REACH][3];
    for (int x = 0; x < 3; ++x) {
      Vector g[3], out[REACH];
      for (int y = 0; y < 3; ++y) g[y] = load(taps + (y * 3 + x) * LANES);
      transform_taps(g, out);
      for (int y = 0; y < REACH; ++y) half[y][x] = out[y];
    }
    for (int y = 0; y < REACH; ++y) {
      Vector out[REACH];
      transform_taps(half[y], out);
      for (int x = 0; x < REACH; ++x) store(to + (y * REACH + x) * between, out[x]);
    }
  }

  bool turned_;
};

// Every thread's Σ V ⊙ (A dy Aᵀ): for each point a matrix [inputs, outputs].
struct TileSums {
  int threads;
  long padded, between, apart;  // floats between two rows, two points, two threads
  Scratch data;

  TileSums(const Shape& shape, int threads_)
      : threads(threads_),
        padded(round_up(shape.outputs, LANES)),
        between(shape.inputs * padded + 16),
        apart(POINTS * between),
        data(threads * apart) {}
  void clear(int thread) const {
    std::memset(data.get() + thread * apart, 0, sizeof(float) * apart);
  }
  float* point(int thread, int number) const {
    return data.get() + thread * apart + number * between;
  }
};

// The weights' gradients [outputs, inputs, 3, 3] of all threads' sums, in their order; the part of
// these inputs.
inline void return_weights(const Shape& shape, const TileSums& sums, Share inputs, float* to) {
  for (long i = inputs.low; i < inputs.high; ++i)
    for (int o = 0; o < shape.outputs; o += LANES) {
      Vector half[3][REACH];
      for (int x = 0; x < REACH; ++x) {
        Vector m[REACH] = {}, out[3];
        for (int thread = 0; thread < sums.threads; ++thread)
          for (int y = 0; y < REACH; ++y)
            m[y] += load(sums.point(thread, y * REACH + x) + i * sums.padded + o);
        return_taps(m, out);
        for (int y = 0; y < 3; ++y) half[y][x] = out[y];
      }
      float taps[9 * LANES];
      for (int y = 0; y < 3; ++y) {
        Vector out[3];
        return_taps(half[y], out);
        for (int x = 0; x < 3; ++x) store(taps + (y * 3 + x) * LANES, out[x]);
      }
      for (int lane = 0; lane < std::min(LANES, shape.outputs - o); ++lane)
        for (int t = 0; t < 9; ++t)
          to[((o + lane) * static_cast<long>(shape.inputs) + i) * 9 + t] = taps[t * LANES + lane];
    }
}

}  // namespace densepath
