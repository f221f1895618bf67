// INT8 3×3 convolutions whose groups are narrower than a vector.
//
// Each group's channels take whole quads of bytes. A vector of outputs spans several groups; one
// permutation puts beside every output a quad of its group's inputs.
#pragma once

#include <vector>

#include "int8.hpp"

namespace densepath {

// Whether the groups of any vector of outputs lie in one vector of input.
inline bool are_narrow(int outputs, int width, int room) {
  if (!PERMUTES || width >= LANES / 2 + 1) return false;
  for (int j = 0; j < outputs; j += LANES)
    if ((std::min(outputs, j + LANES) - 1) / width - j / width + 1 > LANES / (room / 4))
      return false;
  return true;
}

// One vector of outputs.
struct NarrowGroups {
  int first_output, outputs, quads;  // quads of a group
  long first_byte;                   // of the first group's inputs in a pixel
  std::vector<int32_t> places;       // [LANES]: the first quad of each output's group
  ByteBuffer weights;                // [9, quads, LANES, 4]

  // M pixels that lie `step` apart.
  template <int M>
  __attribute__((noinline)) void tile(const uint8_t* corner, long step, long line, long ld,
                                      const Finish& how, const Row* rows) const {
    Integers sums[M][1];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) sums[r][0] = Integers{};
    const Integers first = load_integers(places.data());
    const uint8_t* w = weights.get();
    for (int tap = 0; tap < 9; ++tap) {
      const uint8_t* from = corner + first_byte + tap / 3 * line + tap % 3 * ld;
      for (int q = 0; q < quads; ++q, w += LANES * 4) {
        const Integers weight = load_integers(w);
        const Places here = (Places)(first + q);
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r)
          sums[r][0] = dot(sums[r][0], permute(load_integers(from + r * step), here), weight);
      }
    }
    finish(sums, how, first_output, outputs, rows);
  }

  template <int M = MR>
  void run(const uint8_t* corner, long step, long line, long ld, int count, const Finish& how,
           const Row* rows) const {
    if (count == M) return tile<M>(corner, step, line, ld, how, rows);
    if constexpr (M > 1) run<M - 1>(corner, step, line, ld, count, how, rows);
  }
};

// `taps` [outputs, 3, 3, room] of groups that are `width` wide.
inline std::vector<NarrowGroups> narrow_groups(const int8_t* taps, int outputs, int width,
                                               int room) {
  std::vector<NarrowGroups> made;
  const int quads = room / 4;
  for (int j = 0; j < outputs; j += LANES) {
    NarrowGroups some{j,     std::min(LANES, outputs - j),
                      quads, static_cast<long>(j / width) * room,
                      {},    bytes(static_cast<size_t>(9) * quads * LANES * 4)};
    for (int lane = 0; lane < LANES; ++lane) {
      const int o = j + lane;
      some.places.push_back(lane < some.outputs ? (o / width - j / width) * quads : 0);
      for (int k = 0; lane < some.outputs && k < 9 * quads; ++k)
        std::memcpy(some.weights.get() + (static_cast<size_t>(k) * LANES + lane) * 4,
                    taps + (static_cast<size_t>(o) * 9 * quads + k) * 4, 4);
    }
    made.push_back(std::move(some));
  }
  return made;
}

}  // namespace densepath
