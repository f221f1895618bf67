// Groups in bfloat16: entries are pairs of a group's inputs, each two products of rounded numbers,
// with sums in float32.
#pragma once

#include "bfloat16.hpp"
#include "grouped_tile.hpp"

namespace densepath {

struct PairEntry {
  typedef float Unit;
  typedef Pairs Lanes;
  typedef Vector Sums;
  static constexpr int INPUTS = 2;
  static Pairs read(const float* p) { return *reinterpret_cast<const Pairs*>(p); }
  static Pairs spread(const float* p) {
    uint32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return pair - Pairs{};
  }
  static Vector add(Vector sums, Pairs left, Pairs right) { return add_pairs(sums, left, right); }
  static void set(float* lanes, Vector weights, int input) {
    store_half(lanes, weights, input % 2);
  }
  static void set_one(float* lane, float weight, int input) {
    BFloat16 rounded[LANES];
    store(rounded, splat(weight));
    reinterpret_cast<BFloat16*>(lane)[input] = rounded[0];
  }
  static void keep(float* to, Vector inputs) { store(reinterpret_cast<BFloat16*>(to), inputs); }
  // The last pair of a group of odd width has a zero beside its input.
  static void place(float* from, float* to, int inputs, int width) {
    BFloat16* halves = reinterpret_cast<BFloat16*>(width % 2 == 0 ? to : from);
    copy(halves, from, inputs);  // never writes what is still to be read
    if (width % 2 == 0) return;
    for (int c = 0; c < inputs; c += width)
      for (int i = 0; i < width; i += 2, ++to) {
        uint32_t pair;
        std::memcpy(&pair, halves + c + i, sizeof pair);
        if (i + 1 == width) pair &= 0xffff;
        std::memcpy(to, &pair, sizeof pair);
      }
  }
};

}  // namespace densepath
