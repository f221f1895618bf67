// The lanes of a vector in another order.
#pragma once

#include "matrix.hpp"

namespace densepath {

typedef int32_t Places __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// `v`'s lanes by their places in it; whether that is one instruction.
#if defined(__AVX512F__)
constexpr bool PERMUTES = true;
template <class Lanes>
inline Lanes permute(Lanes v, Places places) {
  // Not the plain intrinsic, of whose undefined operand GCC 12 warns.
  return (Lanes)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)places, (__m512i)v);
}
#elif defined(__AVX2__)
constexpr bool PERMUTES = true;
template <class Lanes>
inline Lanes permute(Lanes v, Places places) {
  return (Lanes)_mm256_permutevar8x32_epi32((__m256i)v, (__m256i)places);
}
#else
constexpr bool PERMUTES = false;
template <class Lanes>
inline Lanes permute(Lanes v, Places places) {
  Lanes made{};
  for (int lane = 0; lane < LANES; ++lane) made[lane] = v[places[lane]];
  return made;
}
#endif

}  // namespace densepath
