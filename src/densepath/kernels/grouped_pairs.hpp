// 3×3 convolutions in groups in bfloat16: products of rounded numbers, sums in float32.
//
// The padded map holds pairs of inputs, each group's from a new one on, so that a pair's products
// are of one group. Of narrow groups, whose inputs one vector holds for a vector of outputs, one
// shuffle puts the i-th pair of each group beside the group's outputs; of the others every output
// takes the same pair. A row's pixels are computed together: what is read of a column serves the
// three of them that it lies under.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "bfloat16.hpp"
#include "grouped.hpp"
#include "image_maps.hpp"

namespace densepath {

inline Pairs load_pairs(const float* p) { return *reinterpret_cast<const Pairs*>(p); }

// Lanes of a vector by their places in it.
inline Pairs permute(Pairs pairs, Places places) {
#if defined(__AVX512F__)
  return (Pairs)_mm512_permutexvar_epi32((__m512i)places, (__m512i)pairs);
#elif defined(__GNUC__) && !defined(__clang__)
  return __builtin_shuffle(pairs, places);
#else
  return pairs;  // never called: see `SHUFFLES`
#endif
}

// One or two vectors of outputs; of several groups, or in one.
struct PairedSlice {
  int first_pair, first_output, columns;
  std::vector<int32_t> places;  // [pairs of a group, LANES]: from `first_pair` on
  Floats weights;               // [3 rows, pairs of a group, 3 columns, vectors, LANES] of pairs
  int vectors() const { return (columns + LANES - 1) / LANES; }
};

// Pixels of a row that are computed together at most, each with a vector of sums: half of the
// registers are left for weights and inputs.
constexpr int MOST_ABREAST = MR == 14 ? 14 : 4;

// tile(constant, x) computes the pixels [x, x + constant): tiles of M pixels and less, until all of
// `width` are covered. The last may cover again what lies before it, where that costs less.
template <int M, class Tile>
inline void cover(int x, int width, const Tile& tile) {
  for (; width - x >= M; x += M) tile(std::integral_constant<int, M>{}, x);
  if constexpr (M > 1) {
    if (x == width) return;
    if (width >= M && width - x > M / 2) return tile(std::integral_constant<int, M>{}, width - M);
    cover<M / 2>(x, width, tile);
  }
}

// M pixels of a row, `pairs` of inputs a group. `in.step` is STRIDE · `in.ld`.
template <int M, int NV, int STRIDE, bool NARROW, class Number>
__attribute__((noinline)) void paired_tile(const PairedSlice& slice, int pairs, Window in,
                                           TargetOf<Number> out) {
  Vector sums[M][NV];
  start_sums(sums, out.bias);
  const float* weights = slice.weights.get();
  const float* line = in.corner;
  for (int n = 3 * pairs, i = 0; n > 0; --n, weights += 3 * NV * LANES) {
    const float* from = line + (NARROW ? 0 : i);
    Places places{};
    if constexpr (NARROW)
      places = *reinterpret_cast<const Places*>(slice.places.data() + i * LANES);
    Pairs right[3][NV];
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) right[tap][v] = load_pairs(weights + (tap * NV + v) * LANES);
#pragma GCC unroll 32
    for (int x = 0; x < (M - 1) * STRIDE + 3; ++x) {
      Pairs left;
      if constexpr (NARROW) {
        left = permute(load_pairs(from + x * in.ld), places);
      } else {
        uint32_t pair;
        std::memcpy(&pair, from + x * in.ld, sizeof pair);
        left = pair - Pairs{};
      }
#pragma GCC unroll 3
      for (int tap = 0; tap < 3; ++tap)
        if (const int under = x - tap; under >= 0 && under % STRIDE == 0 && under / STRIDE < M) {
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v)
            sums[under / STRIDE][v] = add_pairs(sums[under / STRIDE][v], left, right[tap][v]);
        }
    }
    if (++i == pairs) {
      i = 0;
      line += in.line;
    }
  }
  out.write(sums);
}

// A convolution whose groups have as many outputs as inputs.
class GroupedPairs {
 public:
  GroupedPairs() = default;

  // `taps` [3, 3, width, outputs].
  GroupedPairs(const float* taps, int outputs, int width, int stride)
      : outputs_(outputs), width_(width), pairs_((width + 1) / 2), stride_(stride) {
    narrow_ = SHUFFLES && fit_vectors();
    for (int first = 0; first < outputs;) {
      const int end = narrow_ ? outputs : (first / width + 1) * width;
      const int columns = std::min(end - first, narrow_ ? LANES : PANEL);
      slices_.push_back(slice(taps, first, columns));
      first += columns;
    }
  }
  explicit operator bool() const { return !slices_.empty(); }

  // What it reads of a map of this size. An odd number of vectors keeps pixels from falling on the
  // same cache sets.
  Padded padded(float* data, int height, int width) const {
    return Padded::of(data, height, width, round_up(outputs_ / width_ * pairs_, LANES) | LANES);
  }

  // One pixel's inputs, in whole vectors, → a pixel of the padded map. `from` is overwritten.
  void place(float* from, float* to) const {
    BFloat16* halves = reinterpret_cast<BFloat16*>(width_ % 2 == 0 ? to : from);
    copy(halves, from, outputs_);  // never writes what is still to be read
    if (width_ % 2 == 0) return;
    for (int c = 0; c < outputs_; c += width_)
      for (int i = 0; i < width_; i += 2, ++to) {
        uint32_t pair;
        std::memcpy(&pair, halves + c + i, sizeof pair);
        if (i + 1 == width_) pair &= 0xffff;
        std::memcpy(to, &pair, sizeof pair);
      }
  }

  // Columns of `out` from `column` on.
  template <class Number>
  void run(const Padded& in, const MapOf<Number>& out, int column, const float* bias, bool relu,
           Part part) const {
    int low, high;
    part.share(out.height, low, high);
    for (int y = low; y < high; ++y)
      for (const PairedSlice& slice : slices_) {
        const float* corner = in.at(y * stride_ - 1, -1) + slice.first_pair;
        const TargetOf<Number> target{out.at(y * out.width) + column + slice.first_output, out.ld,
                                      slice.columns, bias ? bias + slice.first_output : nullptr,
                                      relu};
        const Window window{corner, stride_ * in.ld, in.whole_width * in.ld, in.ld};
        if (stride_ == 1)
          run_row<1>(slice, out.width, window, target);
        else
          run_row<2>(slice, out.width, window, target);
      }
  }

 private:
  int first_pair(int output) const { return output / width_ * pairs_; }

  // Whether the inputs of any vector of outputs lie within a vector of pairs.
  bool fit_vectors() const {
    for (int first = 0; first < outputs_; first += LANES) {
      const int last = std::min(first + LANES, outputs_) - 1;
      if (first_pair(last) + pairs_ - first_pair(first) > LANES) return false;
    }
    return true;
  }

  PairedSlice slice(const float* taps, int first, int columns) const {
    PairedSlice made{first_pair(first), first, columns, std::vector<int32_t>(pairs_ * LANES), {}};
    const int across = made.vectors() * LANES;
    for (int i = 0; narrow_ && i < pairs_; ++i)
      for (int lane = 0; lane < columns; ++lane)
        made.places[i * LANES + lane] = first_pair(first + lane) + i - made.first_pair;
    made.weights = floats(static_cast<size_t>(9) * pairs_ * across);
    for (int tap = 0; tap < 9; ++tap)
      for (int input = 0; input < width_; ++input) {
        std::vector<float> row(across);
        for (int lane = 0; lane < columns; ++lane)
          row[lane] = taps[(static_cast<size_t>(tap) * width_ + input) * outputs_ + first + lane];
        const int place = (tap / 3 * pairs_ + input / 2) * 3 + tap % 3;
        for (int lane = 0; lane < across; lane += LANES)
          store_half(made.weights.get() + static_cast<size_t>(place) * across + lane,
                     load(row.data() + lane), input % 2);
      }
    return made;
  }

  template <int STRIDE, class Number>
  void run_row(const PairedSlice& slice, int width, Window in, TargetOf<Number> out) const {
    const auto tiles = [&](auto vectors, auto narrow) {
      constexpr int NV = decltype(vectors)::value;
      cover<MOST_ABREAST / NV>(0, width, [&](auto pixels, int x) {
        Window here = in;
        here.corner += x * in.step;
        TargetOf<Number> there = out;
        there.to += x * out.step;
        paired_tile<decltype(pixels)::value, NV, STRIDE, decltype(narrow)::value>(slice, pairs_,
                                                                                  here, there);
      });
    };
    using One = std::integral_constant<int, 1>;
    if (narrow_)
      tiles(One{}, std::true_type{});
    else if (slice.vectors() == 1)
      tiles(One{}, std::false_type{});
    else
      tiles(std::integral_constant<int, 2>{}, std::false_type{});
  }

  int outputs_ = 0, width_ = 1, pairs_ = 1, stride_ = 1;
  bool narrow_ = false;
  std::vector<PairedSlice> slices_;
};

}  // namespace densepath
