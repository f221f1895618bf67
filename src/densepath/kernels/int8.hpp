// Bytes times bytes: the matrix product of the INT8 layers, and what makes bytes of floats.
//
// Left operand: activations as levels 0…255, of which 0 is zero. Right operand: weights of 8 bits
// with a sign, in panels of two vectors' columns; a lane holds four inputs of one output. Sums are
// exact in 32 bits on every CPU, so that all give the same answer but for the rounding of floats.
#pragma once

#include <vector>

#include "lanes.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include <arm_neon.h>
#endif

namespace densepath {

typedef int32_t Integers __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline Integers load_integers(const void* p) { return *static_cast<const Integers*>(p); }
inline Integers splat_integer(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return four - Integers{};
}

// sums + the products of four levels and four weights in each lane.
inline Integers dot(Integers sums, Integers levels, Integers weights) {
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
  // Not the intrinsic: GCC 12 moves sums through memory around it.
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(levels), "v"(weights));
  return sums;
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
  return (Integers)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)levels, (__m256i)weights);
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  return (Integers)vusdotq_s32((int32x4_t)sums, (uint8x16_t)levels, (int8x16_t)weights);
#elif defined(__AVX2__) && !defined(__AVX512F__)
  // Pairs of 16 bits; of 8 bits `vpmaddubsw` would saturate.
  const __m256i a = (__m256i)levels, w = (__m256i)weights;
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(w, 8));
  return sums + (Integers)_mm256_add_epi32(even, odd);
#elif defined(__AVX512BW__)
  const __m512i a = (__m512i)levels, w = (__m512i)weights;
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(255)),
                                         _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(w, 8));
  return sums + (Integers)_mm512_add_epi32(even, odd);
#else
  for (int shift = 0; shift < 32; shift += 8)
    sums += (levels >> shift & 255) * (weights << (24 - shift) >> 24);
  return sums;
#endif
}

// Floats → the nearest levels, ties to even, as the lowest byte of each lane; not a number → 0.
inline Integers to_levels(Vector x) {
  x = x > 0.0f ? x : Vector{};
  x = x < 255.0f ? x : splat(255.0f);
  return (Integers)(x + splat(12582912.0f));  // 1.5 · 2²³: what is left of the mantissa is whole
}

inline void store_bytes(uint8_t* to, Integers lanes, int count) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)lanes);
  if (count >= LANES)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  else
    std::memcpy(to, &bytes, count);
#else
  uint8_t held[LANES];
  for (int k = 0; k < LANES; ++k) held[k] = static_cast<uint8_t>(lanes[k]);
  std::memcpy(to, held, count >= LANES ? LANES : count);
#endif
}

struct Release {
  void operator()(uint8_t* p) const { std::free(p); }
};

// Zeroed bytes, aligned to a cache line, with two lines to spare.
using ByteBuffer = std::unique_ptr<uint8_t[], Release>;

inline ByteBuffer bytes(size_t count) {
  const size_t whole = (count + 191) / 64 * 64;
  void* p = std::aligned_alloc(64, whole);
  if (!p) throw std::bad_alloc();
  std::memset(p, 0, whole);
  return ByteBuffer(static_cast<uint8_t*>(p));
}

#if defined(__AVX512F__)
// Not the plain intrinsic, of whose undefined operand GCC 12 warns.
inline __m512i nearest(__m512 x) { return _mm512_maskz_cvtps_epi32(0xffff, x); }
#endif

// Floats of a map → levels of what a product reads.
struct Levels {
  Floats scale, shift;

  Vector apply(const float* from, int c) const {
    return load(from + c) * load(scale.get() + c) + load(shift.get() + c);
  }

  // `count` channels; up to a vector's width more are read and written.
  void enter(const float* from, int count, uint8_t* to) const {
    int c = 0;
#if defined(__AVX512BW__)
    for (; c + 64 <= count; c += 64) {
      __m512i four[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k)
        four[k] = nearest(_mm512_min_ps(_mm512_set1_ps(255.0f), (__m512)apply(from, c + 16 * k)));
      store_64(to + c, four);
    }
#endif
    for (; c < count; c += LANES) store_bytes(to + c, to_levels(apply(from, c)), LANES);
  }

  // As `enter`, of the average of four pixels after their ReLU.
  void enter_average(const float* from, long right, long below, int count, uint8_t* to) const {
    const auto sum = [&](int c) {
      const Vector a = relu(apply(from, c)), b = relu(apply(from + right, c));
      const Vector d = relu(apply(from + below, c)), e = relu(apply(from + below + right, c));
      return (a + b + d + e) * 0.25f;
    };
    for (int c = 0; c < count; c += LANES) store_bytes(to + c, to_levels(sum(c)), LANES);
  }

#if defined(__AVX512BW__)
 private:
  static void store_64(uint8_t* to, const __m512i (&four)[4]) {
    const __m512i low = _mm512_packs_epi32(four[0], four[1]);
    const __m512i high = _mm512_packs_epi32(four[2], four[3]);
    const __m512i mixed = _mm512_packus_epi16(low, high);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(to, permute(mixed, (Places)order));
  }
#endif
};

// Weights [outputs, inputs, taps] → [outputs, taps, room]
inline std::vector<int8_t> laid_out(const int8_t* from, int outputs, int inputs, int taps,
                                    int room) {
  std::vector<int8_t> to(static_cast<size_t>(outputs) * taps * room);
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < inputs; ++i)
      for (int t = 0; t < taps; ++t) to[(static_cast<size_t>(o) * taps + t) * room + i] = *from++;
  return to;
}

// Weights [outputs, 4 · quads] as panels of two vectors of outputs.
struct PackedBytes {
  int quads = 0, outputs = 0, padded = 0;
  ByteBuffer data;

  PackedBytes() = default;
  PackedBytes(const int8_t* weights, int quads_, int outputs_)
      : quads(quads_), outputs(outputs_), padded(round_up(outputs_, LANES)) {
    data = bytes(static_cast<size_t>(quads) * 4 * padded);
    for (int o = 0; o < outputs; ++o) {
      const int j = o / PANEL * PANEL, width = panel_width(j);
      uint8_t* to = data.get() + static_cast<size_t>(j) * 4 * quads + (o - j) * 4;
      for (int q = 0; q < quads; ++q)
        std::memcpy(to + static_cast<size_t>(q) * width * 4,
                    weights + (static_cast<size_t>(o) * quads + q) * 4, 4);
    }
  }
  int panel_width(int j) const { return std::min(PANEL, padded - j); }
  const uint8_t* panel(int j) const { return data.get() + static_cast<size_t>(j) * 4 * quads; }
};

// Where the rows of a left operand lie: `step` apart. Each is `down` × `across` pieces of
// `quads` · 4 levels, `line` and `ld` apart.
struct Strip {
  const uint8_t* first;
  long step;
  int quads, across = 1, down = 1;
  long ld = 0, line = 0;
};

// What becomes of the sums: floats or, with `levels`, levels again.
struct Finish {
  const float *scale, *bias;
  bool add, relu, levels;
};

// Where the results of a row go: floats, or bytes.
using Row = void*;

inline Vector finished(Integers sums, const Finish& how, int column) {
  return __builtin_convertvector(sums, Vector) * load(how.scale + column) + load(how.bias + column);
}

inline void finish_levels(Integers sums, const Finish& how, int column, int wanted, Row row) {
  store_bytes(static_cast<uint8_t*>(row) + column, to_levels(finished(sums, how, column)), wanted);
}

inline void finish_floats(Integers sums, const Finish& how, int column, int wanted, Row row) {
  Vector value = finished(sums, how, column);
  float* to = static_cast<float*>(row) + column;
  if (how.add) value += load_some(to, wanted);
  if (how.relu) value = relu(value);
  store_some(to, value, wanted);
}

// Two whole vectors of levels: the sums are finite, and their floats far below 2³¹.
inline void finish_pair(Integers low, Integers high, const Finish& how, int column, Row row) {
#if defined(__AVX512BW__)
  const __m512i words = _mm512_packs_epi32(nearest((__m512)finished(low, how, column)),
                                           nearest((__m512)finished(high, how, column + LANES)));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512i levels = permute(_mm512_packus_epi16(words, words), (Places)order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint8_t*>(row) + column),
                      _mm512_castsi512_si256(levels));
#else
  finish_levels(low, how, column, LANES, row);
  finish_levels(high, how, column + LANES, LANES, row);
#endif
}

template <int M, int NV>
inline void finish(const Integers (&sums)[M][NV], const Finish& how, int column, int columns,
                   const Row* rows) {
  if (NV == 2 && how.levels && columns == PANEL) {
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) finish_pair(sums[r][0], sums[r][NV - 1], how, column, rows[r]);
    return;
  }
#pragma GCC unroll 2
  for (int j = 0; j < NV; ++j) {
    const int first = column + j * LANES, wanted = columns - j * LANES;
    if (wanted <= 0) break;
    if (how.levels) {
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) finish_levels(sums[r][j], how, first, wanted, rows[r]);
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) finish_floats(sums[r][j], how, first, wanted, rows[r]);
    }
  }
}

// rows[M][column …] = finish(a[M, …] · b)
template <int M, int NV>
__attribute__((noinline)) void byte_tile(const Strip& a, const uint8_t* b, const Finish& how,
                                         int column, int columns, const Row* rows) {
  constexpr int THIRDS = (M + 2) / 3;  // three rows a pointer: an address holds up to twice a step
  Integers sums[M][NV];
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sums[r][j] = Integers{};
  const long step = a.step;
  for (int run = 0; run < a.across * a.down; ++run) {
    const uint8_t* from[THIRDS];
    const uint8_t* corner = a.first + run / a.across * a.line + run % a.across * a.ld;
#pragma GCC unroll 8
    for (int i = 0; i < THIRDS; ++i) from[i] = corner + 3 * i * step;
    for (int q = 0; q < a.quads; ++q, b += NV * LANES * 4) {
      Integers right[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) __builtin_prefetch(b + (AHEAD * NV + j) * LANES * 4);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) right[j] = load_integers(b + j * LANES * 4);
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) {
        const Integers left = splat_integer(from[r / 3] + r % 3 * step);
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) sums[r][j] = dot(sums[r][j], left, right[j]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < THIRDS; ++i) from[i] += 4;
    }
  }
  finish(sums, how, column, columns, rows);
}

template <int NV, int M = MR>
inline void byte_tile_of(int count, const Strip& a, const uint8_t* b, const Finish& how, int column,
                         int columns, const Row* rows) {
  if (count == M) return byte_tile<M, NV>(a, b, how, column, columns, rows);
  if constexpr (M > 1) byte_tile_of<NV, M - 1>(count, a, b, how, column, columns, rows);
}

// `count` rows times all of `w`.
inline void multiply_bytes(const PackedBytes& w, const Strip& a, int count, const Finish& how,
                           const Row* rows) {
  const int tiles = (count + MR - 1) / MR;
  for (int j = 0; j < w.padded; j += PANEL) {
    const int width = w.panel_width(j), columns = std::min(width, w.outputs - j);
    for (int t = 0; t < tiles; ++t) {
      const int r = count * t / tiles, m = count * (t + 1) / tiles - r;
      Strip here = a;
      here.first += r * a.step;
      if (width == PANEL)
        byte_tile_of<2>(m, here, w.panel(j), how, j, columns, rows + r);
      else
        byte_tile_of<1>(m, here, w.panel(j), how, j, columns, rows + r);
    }
  }
}

}  // namespace densepath
