// The tiles of grouped convolutions besides that of `grouped_tile.hpp`: tap by tap, for the
// gradients of the inputs of a stride of two and for few registers; and for the gradients of the
// weights.
#pragma once

#include "slices.hpp"

namespace densepath {

// The taps of a tile: where each reads its first pixel, and its weights.
struct Taps {
  const float *sources[9], *weights[9];
  int count = 0;
  void add(const float* source, const float* weight) {
    sources[count] = source;
    weights[count++] = weight;
  }
};

// A pixel's entry beside each output: of a narrow slice by its places.
template <bool NARROW>
inline __attribute__((always_inline)) Vector beside(const float* pixel, int number,
                                                    const int32_t* places) {
  if constexpr (NARROW)
    return permute(load(pixel), *reinterpret_cast<const Places*>(places + number * LANES));
  else
    return splat(pixel[number]);
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

// M pixels, `step` apart, each NV vectors of outputs from `vector` on, into `target`.
template <bool NARROW, int M, int NV, class Target>
__attribute__((noinline)) void taps_tile(const Slices<FloatEntry>& slices, int vector,
                                         const Taps& taps, long step, Target target) {
  Vector sums[M][NV];
  const long entry_step = slices.entry_step(vector);
  const int32_t* places = slices.places.data();
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sums[r][v] = Vector{};
  for (int t = 0; t < taps.count; ++t) {
    const float* weights = taps.weights[t];
    for (int i = 0; i < slices.entries; ++i, weights += entry_step) {
      Vector right[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) right[v] = in_register(load(weights + v * LANES));
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const Vector left = beside<NARROW>(taps.sources[t] + r * step, i, places);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[r][v] += left * right[v];
      }
    }
  }
  target.write(sums);
}

// Pixels in rows: `step` floats between two of a row, `line` between two rows.
struct Field {
  const float* data;
  long step, line;
};

// Entries whose weights' gradients are summed up together: three vectors each.
constexpr int most_entries(bool narrow) { return LANES == 16 ? (narrow ? 4 : 8) : narrow ? 2 : 3; }

// sums[E entries, 3 columns] += entriesᵀ · outputs, over `high` rows of `wide` outputs. `inputs`
// are from the column before the first output's on, with zeros around them, and so are `outputs`.
template <bool NARROW, int STRIDE, int E>
inline void weights_tile(Field inputs, const int32_t* places, Field outputs, int high, int wide,
                         float* sums, long entry_step, long column_step) {
  Vector held[E][3];
#pragma GCC unroll 8
  for (int i = 0; i < E; ++i)
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap)
      held[i][tap] = load(sums + i * entry_step + tap * column_step);
  for (int y = 0; y < high; ++y) {
    const float *from = inputs.data + y * inputs.line, *to = outputs.data + y * outputs.line;
    if constexpr (STRIDE == 1) {
      // What stands in a column belongs to three outputs.
      Vector before = load(to), here = load(to + outputs.step);
      to += 2 * outputs.step;
      for (int x = 0; x < wide; ++x, to += outputs.step) {
        from += inputs.step;
        const Vector behind = load(to);
#pragma GCC unroll 8
        for (int i = 0; i < E; ++i) {
          const Vector left = beside<NARROW>(from, i, places);
          held[i][0] += left * behind;
          held[i][1] += left * here;
          held[i][2] += left * before;
        }
        before = here, here = behind;
      }
    } else {
      for (int x = 0; x < wide; ++x) {
        to += outputs.step;
        const Vector gradient = load(to);
#pragma GCC unroll 3
        for (int tap = 0; tap < 3; ++tap)
#pragma GCC unroll 8
          for (int i = 0; i < E; ++i)
            held[i][tap] += beside<NARROW>(from + tap * inputs.step, i, places) * gradient;
        from += STRIDE * inputs.step;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < E; ++i)
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap)
      store(sums + i * entry_step + tap * column_step, held[i][tap]);
}

// weights_tile of `count` entries, E at most.
template <bool NARROW, int STRIDE, int E = most_entries(NARROW), class... Others>
inline void weights_tile_of(int count, Others... others) {
  if (count == E) return weights_tile<NARROW, STRIDE, E>(others...);
  if constexpr (E > 1) weights_tile_of<NARROW, STRIDE, E - 1>(count, others...);
}

}  // namespace densepath
