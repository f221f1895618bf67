// AMX: registers of 16 × 16 sums, to all of which one instruction adds 32 products of bfloat16.
//
// They take operands as the instruction of AVX512_BF16 does: rows of numbers on the left, pairs
// side by side on the right. The system has to allow a process their use; where it does not, that
// other instruction computes.
#pragma once

#include <type_traits>

#include "matrix.hpp"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define DENSEPATH_SQUARES 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define DENSEPATH_SQUARES 0
#endif

namespace densepath {

constexpr bool HAS_SQUARES = DENSEPATH_SQUARES;

constexpr int SQUARE = 16;                // rows and columns of sums
constexpr int SQUARE_DEPTH = 2 * SQUARE;  // numbers that a step takes of each row

// A left operand: rows `apart` bytes, whole squares of them. Its columns come in parts, so many
// steps each, which begin at `parts` bytes from the first; one alone needs none.
struct SquareLeft {
  const void* data;
  long apart;
  const long* parts;
  int num_parts, steps;
  long part(int number) const { return parts ? parts[number] : 0; }
};

inline int square_steps(int count) { return (count + SQUARE_DEPTH - 1) / SQUARE_DEPTH; }

#if DENSEPATH_SQUARES

// Whether this process may use them; it asks once. A check can do without.
inline bool& squares_allowed() {
  constexpr int REQUEST = 0x1023, DATA = 18;  // Linux: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static bool allowed = syscall(SYS_arch_prctl, REQUEST, DATA) == 0;
  return allowed;
}

// While it lives, this thread's registers have their full size; other libraries set their own.
class Squares {
 public:
  Squares() {
    static const struct {
      uint8_t palette = 1, start = 0, unused[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } size;
    asm volatile("ldtilecfg %0" ::"m"(size) : "memory");
  }
  ~Squares() { asm volatile("tilerelease" ::: "memory"); }
  Squares(const Squares&) = delete;
  Squares& operator=(const Squares&) = delete;
};

template <int TO>
inline void load_square(const void* from, long apart) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(apart), "i"(TO) : "memory");
}

template <int FROM>
inline void store_square(void* to, long apart) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(apart), "i"(FROM) : "memory");
}

template <int SUMS>
inline void clear_square() {
  asm volatile("tilezero %%tmm%c0" ::"i"(SUMS));
}

template <int SUMS, int LEFT, int RIGHT>
inline void add_square() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(LEFT), "i"(RIGHT));
}

// M × N squares of sums in registers 0 to 3, of the left operand in 4 and 5, of the right in 6, 7.
template <int M, int N>
class SquareSums {
 public:
  // From zero, or from what stands at c.
  static void begin(const float* c, long ldc, bool add) {
    each([&](auto m, auto n) {
      if (add)
        load_square<m * N + n>(c + m * SQUARE * ldc + n * SQUARE, ldc * sizeof(float));
      else
        clear_square<m * N + n>();
    });
  }

  // A step: rows of `a` are so many bytes apart, those of `b` lie side by side.
  static void add(const char* a, long a_apart, const float* b) {
    constexpr long B_APART = N * SQUARE * sizeof(float);
    load_square<6>(b, B_APART);
    if constexpr (N > 1) load_square<7>(b + SQUARE, B_APART);
    each([&](auto m, auto n) {
      if constexpr (n == 0) load_square<4 + m % 2>(a + m * SQUARE * a_apart, a_apart);
      add_square<m * N + n, 4 + m % 2, 6 + n>();
    });
  }

  static void end(float* c, long ldc) {
    each([&](auto m, auto n) {
      store_square<m * N + n>(c + m * SQUARE * ldc + n * SQUARE, ldc * sizeof(float));
    });
  }

 private:
  template <int I>
  using Constant = std::integral_constant<int, I>;
  template <int I = 0, class Visit>
  static void each(const Visit& visit) {
    visit(Constant<I / N>(), Constant<I % N>());
    if constexpr (I + 1 < M * N) each<I + 1>(visit);
  }
};

// Rows of sums → results, as `finish`.
inline void finish_rows(const float* sums, long apart, int rows, float* c, long ldc, Ending ending,
                        int columns) {
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < columns; j += LANES) {
      const int wanted = columns - j;
      float* to = c + r * ldc + j;
      Vector sum = load(sums + r * apart + j);
      if (ending.add)
        sum += load_some(to, wanted);
      else if (ending.bias)
        sum += load(ending.bias + j);
      if (ending.relu) sum = relu(sum);
      store_some(to, sum, wanted);
    }
}

// c[rows, columns] = ending(a · b) of at most M × N squares, of `a` from row `first` on.
template <int M, int N>
inline void multiply_squares(const SquareLeft& a, int first, const float* b, int rows, float* c,
                             long ldc, Ending ending, int columns) {
  const bool whole = rows == M * SQUARE && columns >= N * SQUARE && !ending.bias && !ending.relu;
  alignas(64) float held[M * N * SQUARE * SQUARE];
  SquareSums<M, N>::begin(c, ldc, whole && ending.add);
  const char* from = static_cast<const char*>(a.data) + first * a.apart;
  for (int part = 0; part < a.num_parts; ++part) {
    const char* at = from + a.part(part);
    for (int k = 0; k < a.steps; ++k, at += 4 * SQUARE, b += N * SQUARE * SQUARE)
      SquareSums<M, N>::add(at, a.apart, b);
  }
  if (whole) return SquareSums<M, N>::end(c, ldc);
  SquareSums<M, N>::end(held, N * SQUARE);
  finish_rows(held, N * SQUARE, rows, c, ldc, ending, std::min(columns, N * SQUARE));
}

// All rows of a panel that is N squares wide.
template <int N, class Between>
inline void multiply_panel_of(const SquareLeft& a, int rows, const float* b, float* c, long ldc,
                              Ending ending, int columns, const Between& between) {
  constexpr int MOST = 4 / N * SQUARE;
  for (int r = 0; r < rows; r += MOST) {
    const int here = std::min(MOST, rows - r);
    const auto run = [&](auto m) {
      multiply_squares<m, N>(a, r, b, here, c + r * ldc, ldc, ending, columns);
    };
    switch ((here + SQUARE - 1) / SQUARE) {
      case 1:
        run(std::integral_constant<int, 1>());
        break;
      case 2:
        run(std::integral_constant<int, 2>());
        break;
      case 3:
        run(std::integral_constant<int, std::min(3, 4 / N)>());
        break;
      default:
        run(std::integral_constant<int, 4 / N>());
    }
    between();
  }
}

// One panel of a product of pairs.
template <class Between>
inline void multiply_by_squares(const SquareLeft& left, int rows, const float* panel, int width,
                                float* c, long ldc, Ending ending, int columns,
                                const Between& between) {
  const Squares squares;
  if (width == PANEL)
    multiply_panel_of<2>(left, rows, panel, c, ldc, ending, columns, between);
  else
    multiply_panel_of<1>(left, rows, panel, c, ldc, ending, columns, between);
}

// [32, 16] numbers of 16 bits, rows so many apart → [16, 32], whose rows are of pairs.
inline void turn_pairs(const void* numbers, long from_apart, float* to, long to_apart) {
  const uint16_t* from = static_cast<const uint16_t*>(numbers);
  __m512 r[SQUARE], t[SQUARE];
#pragma GCC unroll 16
  for (int i = 0; i < SQUARE; ++i) {
    const auto row = [&](int k) {
      const void* at = from + (2 * i + k) * from_apart;
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
    };
    r[i] = (__m512)_mm512_or_si512(row(0), _mm512_slli_epi32(row(1), 16));
  }
  // Words of two rows side by side, then of four, then whole quarters change places.
#pragma GCC unroll 8
  for (int i = 0; i < SQUARE; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < SQUARE; i += 4)
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const __m512d low = (__m512d)t[i + k], high = (__m512d)t[i + 2 + k];
      r[i + 2 * k] = (__m512)_mm512_unpacklo_pd(low, high);
      r[i + 2 * k + 1] = (__m512)_mm512_unpackhi_pd(low, high);
    }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512 a = _mm512_shuffle_f32x4(r[k], r[4 + k], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(r[k], r[4 + k], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[8 + k], r[12 + k], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[8 + k], r[12 + k], 0xdd);
    _mm512_storeu_ps(to + k * to_apart, _mm512_shuffle_f32x4(a, c, 0x88));
    _mm512_storeu_ps(to + (4 + k) * to_apart, _mm512_shuffle_f32x4(b, d, 0x88));
    _mm512_storeu_ps(to + (8 + k) * to_apart, _mm512_shuffle_f32x4(a, c, 0xdd));
    _mm512_storeu_ps(to + (12 + k) * to_apart, _mm512_shuffle_f32x4(b, d, 0xdd));
  }
}

#else

inline bool& squares_allowed() {
  static bool allowed = false;
  return allowed;
}

// Never called.
template <class Between>
inline void multiply_by_squares(const SquareLeft&, int, const float*, int, float*, long, Ending,
                                int, const Between&) {}
inline void turn_pairs(const void*, long, float*, long) {}

#endif

inline bool may_use_squares() { return HAS_SQUARES && squares_allowed(); }

}  // namespace densepath
