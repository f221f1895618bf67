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

// As many columns as take the place of KC floats, and as far apart in memory.
constexpr int KC_PAIRED = 2 * KC;

// Between two rows of a left operand of these numbers.
template <class Number>
constexpr int APART = LDA * static_cast<int>(sizeof(float) / sizeof(Number));

// The nearest, of two equally near the even one; what is not a number stays so.
inline void store(BFloat16* p, Vector v) {
#if DENSEPATH_BFLOAT16
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)rounded);
#else
  const Pairs bits = (Pairs)v;
  const Pairs nearest = bits + 0x7fff + (bits >> 16 & 1);
  const Pairs chosen = v == v ? nearest : bits | 0x400000;
  *reinterpret_cast<Halves*>(p) = __builtin_convertvector(chosen >> 16, Halves);
#endif
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

// Weights [inputs, outputs] as panels of two vectors of outputs, as `Packed`, in pairs of inputs:
// [inputs / 2][outputs of the panel][2]. An odd last input has a zero beside it.
struct PackedPairs {
  int inputs = 0, outputs = 0, padded = 0;
  Floats data;  // a pair in each

  PackedPairs() = default;
  PackedPairs(const float* weights, int inputs_, int outputs_)
      : inputs(inputs_), outputs(outputs_), padded(round_up(outputs_, LANES)) {
    data = floats(static_cast<size_t>(pairs()) * padded);
    for (int j = 0; j < padded; j += PANEL) {
      const int width = panel_width(j);
      BFloat16* to = reinterpret_cast<BFloat16*>(data.get()) + 2 * static_cast<size_t>(j) * pairs();
      for (int i = 0; i < inputs; ++i)
        for (int q = 0; q < std::min(width, outputs - j); q += LANES) {
          const int count = std::min(LANES, outputs - j - q);
          BFloat16 held[LANES];
          store(held, load_some(weights + static_cast<size_t>(i) * outputs + j + q, count));
          BFloat16* pair = to + (static_cast<size_t>(i / 2) * width + q) * 2 + i % 2;
          for (int l = 0; l < count; ++l) std::memcpy(pair + 2 * l, held + l, sizeof(BFloat16));
        }
    }
  }
  explicit operator bool() const { return data != nullptr; }
  int pairs() const { return (inputs + 1) / 2; }
  int panel_width(int j) const { return std::min(PANEL, padded - j); }
  const float* panel(int j, int first_pair) const {
    return data.get() + static_cast<size_t>(j) * pairs() +
           static_cast<size_t>(first_pair) * panel_width(j);
  }
};

// c[M, NV vectors] = start + a[M, 2 · pairs] · b[pairs, NV vectors, 2]
template <int M, int NV>
__attribute__((noinline)) void pair_tile(const BFloat16* a, const float* b, int pairs, float* c,
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
      std::memcpy(&pair, a + r * APART<BFloat16> + 2 * k, sizeof pair);
      const Pairs left = pair - Pairs{};
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sums[r][j] = add_pairs(sums[r][j], left, right[j]);
    }
  }
  finish<M, NV>(sums, c, ldc, ending, columns);
}

template <int NV, int M = MR>
inline void pair_tile_of(int rows, const BFloat16* a, const float* b, int pairs, float* c, long ldc,
                         Ending ending, int columns) {
  if (rows == M) return pair_tile<M, NV>(a, b, pairs, c, ldc, ending, columns);
  if constexpr (M > 1) pair_tile_of<NV, M - 1>(rows, a, b, pairs, c, ldc, ending, columns);
}

// One piece of a product: c[rows, columns of w] from `packed` [rows, 2 · pairs], APART<BFloat16>
// apart.
inline void multiply(const PackedPairs& w, int first_pair, int pairs, const BFloat16* packed,
                     int rows, float* c, long ldc, Ending ending) {
  for (int j = 0; j < w.padded; j += PANEL) {
    const int width = w.panel_width(j), columns = std::min(width, w.outputs - j);
    const float* b = w.panel(j, first_pair);
    Ending here = ending;
    if (here.bias) here.bias += j;
    for (int r = 0; r < rows; r += MR) {
      const int m = std::min(MR, rows - r);
      const BFloat16* a = packed + static_cast<long>(r) * APART<BFloat16>;
      float* to = c + r * ldc + j;
      if (width == PANEL)
        pair_tile_of<2>(m, a, b, pairs, to, ldc, here, columns);
      else
        pair_tile_of<1>(m, a, b, pairs, to, ldc, here, columns);
    }
  }
}

// As the one of floats; pack(first, count, to) lays columns of A out as BFloat16.
template <class Pack>
void product(const PackedPairs& w, int rows, const Pack& pack, float* c, long ldc, Ending ending,
             float* scratch) {
  BFloat16* left = reinterpret_cast<BFloat16*>(scratch);
  for (int first = 0; first < w.inputs; first += KC_PAIRED) {
    const int count = std::min(KC_PAIRED, w.inputs - first);
    pack(first, count, left);
    if (count % 2 == 1)  // What stands beside the last input may be no number.
      for (int r = 0; r < rows; ++r) std::memset(left + r * APART<BFloat16> + count, 0, 2);
    Ending here = ending;
    if (first > 0) here = {nullptr, true, ending.relu};
    if (first + count < w.inputs) here.relu = false;
    multiply(w, first / 2, (count + 1) / 2, left, rows, c, ldc, here);
  }
}

// Whether a small product is that of the same rounded numbers in double precision, but for 1e-5 of
// the sum of its magnitudes.
inline bool bfloat16_is_right() {
  constexpr int rows = MR + 1, inputs = 2 * LANES + 5, outputs = PANEL + 3;
  const auto value = [](int i) { return static_cast<float>(i * 7919 % 2003 - 1001) / 997.0f; };
  std::vector<float> a(rows * (inputs + LANES)), b(inputs * outputs), c(rows * outputs);
  for (size_t i = 0; i < a.size(); ++i) a[i] = value(static_cast<int>(i) + 5);
  for (size_t i = 0; i < b.size(); ++i) b[i] = value(static_cast<int>(i) + 11);
  const Floats scratch = floats(static_cast<size_t>(rows) * LDA);
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
