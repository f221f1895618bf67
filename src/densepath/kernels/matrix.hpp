// Vectors, packed weights and the one matrix product that every layer ends in.
//
// Left operand: rows of float32, LDA apart, made by a `pack` function a piece of KC columns at a
// time, which is where BatchNorm, ReLU, pooling or the taps of a convolution are applied.
// Right operand: weights in panels of two vectors' columns. A tile of MR × 2 vectors of results
// stays in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace densepath {

// The widest vectors of the CPU, and the rows of a tile: MR × 2 accumulators and three more fill
// its registers, of which AVX-512 and NEON have 32, the others 16.
#if defined(__AVX512F__)
constexpr int LANES = 16, MR = 14;
#elif defined(__AVX__)
constexpr int LANES = 8, MR = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, MR = 14;
#else
constexpr int LANES = 4, MR = 6;
#endif
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// KC columns of MR rows and of a panel fit into a first-level cache of 48 KiB; the 16 more keep
// rows from falling on the same cache sets.
constexpr int KC = 256, LDA = KC + 16;
constexpr int PANEL = 2 * LANES;
constexpr int AHEAD = 32;  // rows of a panel that are fetched early: weights rarely fit the caches
constexpr int ROWS = 112;  // packed together: the weights are read from memory once for all

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector splat(float x) { return x - Vector{}; }
inline Vector relu(Vector x) { return x < 0.0f ? Vector{} : x; }  // keeps NaN

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// The first `count` lanes, or all.
inline void store_some(float* p, Vector v, int count) {
  if (count >= LANES) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << count) - 1), (__m512)v);
#else
  float values[LANES];
  store(values, v);
  for (int size = LANES / 2, done = 0; size > 0; size /= 2)
    if (count & size) {
      std::memcpy(p + done, values + done, sizeof(float) * size);
      done += size;
    }
#endif
}

// The first `count` lanes, and zeros, or all.
inline Vector load_some(const float* p, int count) {
  if (count >= LANES) return load(p);
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), p);
#elif defined(__AVX__)
  static const int32_t lanes[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
  const float* at = reinterpret_cast<const float*>(lanes + LANES - std::max(count, 0));
  return (Vector)_mm256_maskload_ps(p, _mm256_castps_si256(_mm256_loadu_ps(at)));
#else
  float values[LANES] = {};
  for (int size = LANES / 2, done = 0; size > 0; size /= 2)
    if (count & size) {
      std::memcpy(values + done, p + done, sizeof(float) * size);
      done += size;
    }
  return load(values);
#endif
}

// At least `count` floats; up to a vector's width more are read and written.
inline void copy(float* to, const float* from, int count) {
  for (int k = 0; k < count; k += LANES) store(to + k, load(from + k));
}

struct Free {
  void operator()(float* p) const { std::free(p); }
};

// Floats, aligned to a cache line, with a vector to spare behind the last.
using Floats = std::unique_ptr<float[], Free>;

inline size_t bytes_of(size_t count) { return (count + LANES) * sizeof(float) / 64 * 64 + 64; }

inline Floats unset(size_t count) {
  void* p = std::aligned_alloc(64, bytes_of(count));
  if (!p) throw std::bad_alloc();
  return Floats(static_cast<float*>(p));
}

// Zeros.
inline Floats floats(size_t count) {
  Floats made = unset(count);
  std::memset(made.get(), 0, bytes_of(count));
  return made;
}

// Weights [inputs, outputs] as panels of two vectors of outputs (one in the last if that will do).
struct Packed {
  using Number = float;  // of the left operand
  int inputs = 0, outputs = 0, padded = 0;
  Floats data;

  Packed() = default;
  Packed(int inputs_, int outputs_)  // of zeros, to be filled
      : inputs(inputs_),
        outputs(outputs_),
        padded(round_up(outputs_, LANES)),
        data(floats(static_cast<size_t>(inputs_) * padded)) {}
  Packed(const float* weights, int inputs_, int outputs_) : Packed(inputs_, outputs_) {
    for (int j = 0; j < padded; j += PANEL) fill(j, weights, outputs, 1);
  }
  // The panel of columns from `j` on, of weights whose inputs and outputs lie so far apart.
  void fill(int j, const float* weights, long input_step, long output_step) {
    const int width = panel_width(j), wanted = std::min(width, outputs - j);
    float* to = data.get() + static_cast<size_t>(j) * inputs;
    const float* from = weights + j * output_step;
    for (int i = 0; i < inputs; ++i, to += width, from += input_step)
      for (int q = 0; q < wanted; ++q) to[q] = from[q * output_step];
  }
  int panel_width(int j) const { return std::min(PANEL, padded - j); }
  const float* panel(int j, int first_input) const {
    return data.get() + static_cast<size_t>(j) * inputs +
           static_cast<size_t>(first_input) * panel_width(j);
  }
};

// What a product does with its results: they start from zero, from a bias [columns] or from what
// stands at their place, and may end in a ReLU.
struct Ending {
  const float* bias = nullptr;
  bool add = false;
  bool relu = false;
};

// A tile's sums → its results, of which so many columns are wanted.
template <int M, int NV>
__attribute__((always_inline)) inline void finish(const Vector (&sums)[M][NV], float* c, long ldc,
                                                  Ending ending, int columns) {
#pragma GCC unroll 2
  for (int j = 0; j < NV; ++j) {
    const int wanted = columns - j * LANES;
    if (wanted <= 0) break;
    const Vector bias = ending.bias ? load(ending.bias + j * LANES) : Vector{};
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      float* to = c + r * ldc + j * LANES;
      Vector sum = sums[r][j] + (ending.add ? load_some(to, wanted) : bias);
      if (ending.relu) sum = relu(sum);
      store_some(to, sum, wanted);
    }
  }
}

// c[M, NV vectors] = start + a[M, count] · b[count, NV vectors]; rows of `a` lie ROW apart, its
// columns STEP: so that a transposed left operand is read where it stands.
template <int M, int NV, int ROW = LDA, int STEP = 1>
__attribute__((noinline)) void tile(const float* a, const float* b, int count, float* c, long ldc,
                                    Ending ending, int columns) {
  Vector sums[M][NV];
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sums[r][j] = Vector{};
  for (int k = 0; k < count; ++k, b += NV * LANES) {
    Vector right[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) __builtin_prefetch(b + (AHEAD * NV + j) * LANES);
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) right[j] = load(b + j * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      const Vector left = splat(a[r * ROW + static_cast<long>(k) * STEP]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sums[r][j] += left * right[j];
    }
  }
  finish<M, NV>(sums, c, ldc, ending, columns);
}

template <int NV, int ROW = LDA, int STEP = 1, int M = MR>
inline void tile_of(int rows, const float* a, const float* b, int count, float* c, long ldc,
                    Ending ending, int columns) {
  if (rows == M) return tile<M, NV, ROW, STEP>(a, b, count, c, ldc, ending, columns);
  if constexpr (M > 1) tile_of<NV, ROW, STEP, M - 1>(rows, a, b, count, c, ldc, ending, columns);
}

// Rows that a product of such numbers takes at a time.
template <class Number>
constexpr int TALL = MR;

struct Nothing {
  void operator()() const {}
};

// Between two rows of a left operand of these numbers, and the columns of a piece of it: as many
// bytes as those of floats.
template <class Number>
constexpr int APART = LDA * static_cast<int>(sizeof(float) / sizeof(Number));
template <class Number>
constexpr int DEPTH = KC * static_cast<int>(sizeof(float) / sizeof(Number));

// What a product reads beside a row's last number, if anything, is zero.
inline void end_rows(float*, int, int) {}

// One panel of a piece of a product: c[rows, columns] from `packed` [rows, count], APART, and a
// panel that is `width` wide. `between` is done after each tile: what waits for memory may hide
// there.
template <class Number, class Between>
inline void multiply_panel(const Number* packed, int rows, const float* panel, int width, int count,
                           float* c, long ldc, Ending ending, int columns, const Between& between) {
  for (int r = 0; r < rows; r += MR) {
    const int m = std::min(MR, rows - r);
    const Number* a = packed + static_cast<long>(r) * APART<Number>;
    if (width == PANEL)
      tile_of<2>(m, a, panel, count, c + r * ldc, ldc, ending, columns);
    else
      tile_of<1>(m, a, panel, count, c + r * ldc, ldc, ending, columns);
    between();
  }
}

// One piece of a product: c[rows, columns of w] from `packed` [rows, count].
template <class Weights, class Between = Nothing>
inline void multiply(const Weights& w, int first_input, int count,
                     const typename Weights::Number* packed, int rows, float* c, long ldc,
                     Ending ending, const Between& between = {}) {
  for (int j = 0; j < w.padded; j += PANEL) {
    const int width = w.panel_width(j), columns = std::min(width, w.outputs - j);
    Ending here = ending;
    if (here.bias) here.bias += j;
    multiply_panel(packed, rows, w.panel(j, first_input), width, count, c + j, ldc, here, columns,
                   between);
  }
}

// c[rows, w.outputs] = ending(A · w); pack(first, count, to) lays columns of A out, APART.
template <class Weights, class Pack, class Between = Nothing>
void product(const Weights& w, int rows, const Pack& pack, float* c, long ldc, Ending ending,
             float* scratch, const Between& between = {}) {
  using Number = typename Weights::Number;
  Number* left = reinterpret_cast<Number*>(scratch);
  for (int first = 0; first < w.inputs; first += DEPTH<Number>) {
    const int count = std::min(DEPTH<Number>, w.inputs - first);
    pack(first, count, left);
    end_rows(left, rows, count);
    Ending here = ending;
    if (first > 0) here = {nullptr, true, ending.relu};
    if (first + count < w.inputs) here.relu = false;
    multiply(w, first, count, left, rows, c, ldc, here, between);
  }
}

}  // namespace densepath
