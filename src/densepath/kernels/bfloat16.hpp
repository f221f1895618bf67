// The matrix product in bfloat16: products of rounded numbers, sums in float32.
//
// Left operand: rows of bfloat16, laid out by the same `pack` functions as floats; what a vector
// of floats becomes while it is stored. Right operand: weights in panels, for each column pairs of
// inputs side by side, as the instruction of AVX512_BF16 takes them. Every other processor computes
// the same in float32, which is slower than float32 itself but answers as that instruction does.
#pragma once

#include <cmath>
#include <stdexcept>
#include <vector>

#include "matrix.hpp"
#include "squares.hpp"

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define DENSEPATH_BFLOAT16 1
#else
#define DENSEPATH_BFLOAT16 0
#endif

namespace densepath {

// Whether this was compiled for a processor that multiplies bfloat16.
constexpr bool HAS_BFLOAT16 = DENSEPATH_BFLOAT16;

// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

typedef uint32_t Pairs __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

template <>
constexpr int TALL<BFloat16> = HAS_SQUARES ? 2 * SQUARE : MR;

// In the lower half of each lane the nearest, of two equally near the even one; what is not a
// number stays so.
inline Pairs rounded(Vector v) {
#if DENSEPATH_BFLOAT16
  return (Pairs)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  const Pairs bits = (Pairs)v;
  const Pairs nearest = bits + 0x7fff + (bits >> 16 & 1);
  return (v == v ? nearest : bits | 0x400000) >> 16;
#endif
}

inline void store(BFloat16* p, Vector v) {
#if DENSEPATH_BFLOAT16
  const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)half);
#else
  *reinterpret_cast<Halves*>(p) = __builtin_convertvector(rounded(v), Halves);
#endif
}

// The nearest bfloat16 as floats.
inline Vector as_rounded(Vector v) { return (Vector)(rounded(v) << 16); }

inline Vector load(const BFloat16* p) {
  const Halves bits = *reinterpret_cast<const Halves*>(p);
  return (Vector)(__builtin_convertvector(bits, Pairs) << 16);
}

// The first `count` lanes, or all.
inline void store_some(BFloat16* p, Vector v, int count) {
  if (count >= LANES) return store(p, v);
#if DENSEPATH_BFLOAT16
  const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1 << std::max(count, 0)) - 1), (__m256i)half);
#else
  BFloat16 values[LANES];
  store(values, v);
  std::memcpy(p, values, sizeof(BFloat16) * std::max(count, 0));
#endif
}

// The first `count` lanes, and zeros, or all.
inline Vector load_some(const BFloat16* p, int count) {
  if (count >= LANES) return load(p);
  BFloat16 values[LANES] = {};
  std::memcpy(values, p, sizeof(BFloat16) * std::max(count, 0));
  return load(values);
}

// A row's numbers as one half of pairs: the first has zeros beside it, the second joins it.
inline void store_half(float* pairs, Vector v, bool second) {
  Pairs& held = *reinterpret_cast<Pairs*>(pairs);
  held = second ? held | rounded(v) << 16 : rounded(v);
}

// At least `count` numbers; up to a vector's width more are read and written.
inline void copy(BFloat16* to, const float* from, int count) {
  for (int k = 0; k < count; k += LANES) store(to + k, load(from + k));
}

// sums + left · right of the pairs in each lane, the upper halves first.
inline Vector add_pairs(Vector sums, Pairs left, Pairs right) {
#if DENSEPATH_BFLOAT16
  // Not the intrinsic: as of `vpdpbusd`, GCC 12 moves sums through memory around it.
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(left), "v"(right));
  return sums;
#else
  sums += (Vector)(left & 0xffff0000) * (Vector)(right & 0xffff0000);
  return sums + (Vector)(left << 16) * (Vector)(right << 16);
#endif
}

// `count` numbers, and zeros up to `padded`, whole vectors.
inline void store_padded(BFloat16* to, const float* from, int count, int padded) {
  for (int c = 0; c < padded; c += LANES)
    store(to + c, c < count ? load_some(from + c, count - c) : Vector{});
}

// Weights [inputs, outputs] as panels of two vectors of outputs, as `Packed`, in pairs of inputs:
// [inputs / 2][outputs of the panel][2]. Behind the last input there are zeros up to a whole step
// of the instruction.
struct PackedPairs {
  using Number = BFloat16;  // of the left operand
  static constexpr int STEP = HAS_SQUARES ? SQUARE_DEPTH : 2;
  int inputs = 0, outputs = 0, padded = 0;
  Floats data;  // a pair in each

  PackedPairs() = default;
  PackedPairs(int inputs_, int outputs_)  // of zeros, to be filled
      : inputs(inputs_),
        outputs(outputs_),
        padded(round_up(outputs_, LANES)),
        data(floats(static_cast<size_t>(pairs()) * padded)) {}
  PackedPairs(const float* weights, int inputs_, int outputs_) : PackedPairs(inputs_, outputs_) {
    for (int j = 0; j < padded; j += PANEL) fill(j, weights, outputs, 1);
  }
  // As that of `Packed`.
  void fill(int j, const float* weights, long input_step, long output_step) {
    const int width = panel_width(j), wanted = std::min(width, outputs - j);
    const float* from = weights + j * output_step;
    for (int i = 0; i < inputs; ++i, from += input_step) {
      float* to =
          data.get() + static_cast<size_t>(j) * pairs() + static_cast<size_t>(i / 2) * width;
      float row[PANEL] = {};
      for (int q = 0; q < wanted; ++q) row[q] = from[q * output_step];
      for (int q = 0; q < width; q += LANES) store_half(to + q, load(row + q), i % 2);
    }
  }
  explicit operator bool() const { return data != nullptr; }
  int pairs() const { return round_up(inputs, STEP) / 2; }
  int panel_width(int j) const { return std::min(PANEL, padded - j); }
  // `first_input` is even.
  const float* panel(int j, int first_input) const {
    return data.get() + static_cast<size_t>(j) * pairs() +
           static_cast<size_t>(first_input / 2) * panel_width(j);
  }
};

// As the one of floats: c[M, NV vectors] = start + a[M, 2 · pairs] · b[pairs, NV vectors, 2], with
// ROW and STEP in pairs.
template <int M, int NV, int ROW = LDA, int STEP = 1>
__attribute__((noinline)) void tile(const BFloat16* a, const float* b, int pairs, float* c,
                                    long ldc, Ending ending, int columns) {
  Vector sums[M][NV];
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sums[r][j] = Vector{};
  for (int k = 0; k < pairs; ++k, b += NV * LANES) {
    Pairs right[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) __builtin_prefetch(b + (AHEAD * NV + j) * LANES);
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) right[j] = *reinterpret_cast<const Pairs*>(b + j * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      uint32_t pair;
      std::memcpy(&pair, a + 2 * (r * ROW + static_cast<long>(k) * STEP), sizeof pair);
      const Pairs left = pair - Pairs{};
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sums[r][j] = add_pairs(sums[r][j], left, right[j]);
    }
  }
  finish<M, NV>(sums, c, ldc, ending, columns);
}

// Of `count` numbers, the last of which has a zero beside it if they are odd.
template <int NV, int ROW = LDA, int STEP = 1, int M = MR>
inline void tile_of(int rows, const BFloat16* a, const float* b, int count, float* c, long ldc,
                    Ending ending, int columns) {
  if (rows == M) return tile<M, NV, ROW, STEP>(a, b, (count + 1) / 2, c, ldc, ending, columns);
  if constexpr (M > 1) tile_of<NV, ROW, STEP, M - 1>(rows, a, b, count, c, ldc, ending, columns);
}

// What a product reads behind the last number may be none.
inline void end_rows(BFloat16* left, int rows, int count) {
  const size_t more = round_up(count, PackedPairs::STEP) - count;
  if (more)
    for (int r = 0; r < rows; ++r)
      std::memset(left + r * APART<BFloat16> + count, 0, more * sizeof(BFloat16));
}

// As the one of floats, of rows in whole squares.
template <class Between>
inline void multiply_panel(const BFloat16* packed, int rows, const float* panel, int width,
                           int count, float* c, long ldc, Ending ending, int columns,
                           const Between& between) {
  if (!may_use_squares())
    return multiply_panel<BFloat16, Between>(packed, rows, panel, width, count, c, ldc, ending,
                                             columns, between);
  constexpr long apart = APART<BFloat16> * sizeof(BFloat16);
  multiply_by_squares({packed, apart, nullptr, 1, square_steps(count)}, rows, panel, width, c, ldc,
                      ending, columns, between);
}

// Whether a small product is that of the same rounded numbers in double precision, but for 1e-5 of
// the sum of its magnitudes.
inline bool bfloat16_is_right() {
  constexpr int rows = MR + 1, inputs = 2 * LANES + 5, outputs = PANEL + 3;
  const auto value = [](int i) { return static_cast<float>(i * 7919 % 2003 - 1001) / 997.0f; };
  std::vector<float> a(rows * (inputs + LANES)), b(inputs * outputs), c(rows * outputs);
  for (size_t i = 0; i < a.size(); ++i) a[i] = value(static_cast<int>(i) + 5);
  for (size_t i = 0; i < b.size(); ++i) b[i] = value(static_cast<int>(i) + 11);
  const Floats scratch = floats(static_cast<size_t>(ROWS) * LDA);
  const auto pack = [&](int first, int count, BFloat16* to) {
    for (int r = 0; r < rows; ++r)
      copy(to + r * APART<BFloat16>, a.data() + r * (inputs + LANES) + first, count);
  };
  product(PackedPairs(b.data(), inputs, outputs), rows, pack, c.data(), outputs, {}, scratch.get());
  const auto plainly_rounded = [](float x) {  // to 8 bits; none of the values lies between two
    int exponent;
    const double part = std::frexp(x, &exponent);
    return std::ldexp(std::nearbyint(part * 256), exponent - 8);
  };
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < outputs; ++o) {
      double sum = 0, magnitudes = 0;
      for (int i = 0; i < inputs; ++i) {
        const double one =
            plainly_rounded(a[r * (inputs + LANES) + i]) * plainly_rounded(b[i * outputs + o]);
        sum += one;
        magnitudes += std::abs(one);
      }
      if (!(std::abs(c[r * outputs + o] - sum) <= 1e-5 * magnitudes)) return false;
    }
  return true;
}

// Throws std::runtime_error: this processor computes something else.
inline void check_bfloat16() {
  if (!bfloat16_is_right())
    throw std::runtime_error("this processor's bfloat16 product is not that of the numbers");
}

}  // namespace densepath
