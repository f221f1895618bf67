// Groups in INT8: entries are four of a group's levels, with sums that are exact.
#pragma once

#include "grouped.hpp"
#include "int8.hpp"

namespace densepath {

struct ByteEntry {
  static constexpr int INPUTS = 4;
  struct Unit {
    uint8_t levels[INPUTS];
  };
  typedef Integers Lanes, Sums;
  static Integers read(const void* p) { return load_integers(p); }
  static Integers spread(const void* p) { return splat_integer(p); }
  static Integers add(Integers sums, Integers left, Integers right) {
    return dot(sums, left, right);
  }
  static void set(float* lanes, Vector weights, int input) {
    auto* bytes = reinterpret_cast<int8_t*>(lanes);
    for (int lane = 0; lane < LANES; ++lane)
      bytes[lane * INPUTS + input] = static_cast<int8_t>(weights[lane]);
  }
};

// Where a tile writes: the first pixel's outputs, `step` bytes between two pixels.
struct ByteTarget {
  uint8_t* to;
  long step;
  int columns;
  Finish how;

  ByteTarget at(int pixel) const { return {to + pixel * step, step, columns, how}; }
  template <int M, int NV>
  void start(Integers (&sums)[M][NV]) const {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sums[r][v] = Integers{};
  }
  template <int M, int NV>
  void write(const Integers (&sums)[M][NV]) const {
    Row rows[M];
    for (int r = 0; r < M; ++r) rows[r] = to + r * step;
    finish(sums, how, 0, columns, rows);
  }
};

}  // namespace densepath
