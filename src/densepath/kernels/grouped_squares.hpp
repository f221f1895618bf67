// 3×3 convolutions in groups in AMX's registers, for groups of up to 32 channels.
//
// The padded map is in planes, see taps.hpp.
#pragma once

#include <vector>

#include "image_maps.hpp"
#include "taps.hpp"

namespace densepath {

class GroupedSquares {
 public:
  // Whether groups of so many inputs, and as many outputs, go this way.
  static bool takes(int width) { return multiplies_planes(width); }

  GroupedSquares() = default;

  // `taps` [3, 3, width, outputs].
  GroupedSquares(const float* taps, int outputs, int width, int stride)
      : stride_(stride), planes_(outputs, width) {
    for (int plane = 0; plane < planes_.count(); ++plane)
      weights_.push_back(planes_.pack(plane, [&](int tap, int i, int o) {
        return taps[(static_cast<size_t>(tap) * width + i % width) * outputs + o];
      }));
  }
  explicit operator bool() const { return !weights_.empty(); }

  Padded padded(float* data, int height, int width) const {
    const int columns = width + 2, more = (2 * stride_ * MOST + columns) / columns;
    return {data,
            height,
            width,
            height + 2 + more,
            columns,
            planes_.slot / 2,
            static_cast<int>(weights_.size())};
  }

  // One pixel's inputs → a pixel of that.
  void place(const float* from, const Padded& to, int y, int x) const {
    for (int plane = 0; plane < to.planes; ++plane) {
      const auto [first, count] = planes_.span(plane);
      store_padded(reinterpret_cast<BFloat16*>(to.at(y, x, plane)), from + first, count,
                   planes_.slot);
    }
  }

  // Columns of `out` from `column` on.
  template <class Number>
  void run(const Padded& in, const MapOf<Number>& out, int column, const float* bias, bool relu,
           Part part) const {
    // With a stride of one the pixels of all rows, and what stands between them, are one line.
    const int columns = stride_ == 1 ? in.whole_width : out.width, lines = out.height;
    const int length = stride_ == 1 ? lines * columns - 2 : columns;
    const int pieces = (length + MOST - 1) / MOST, total = stride_ == 1 ? pieces : lines * pieces;
    int low, high;
    part.share(total, low, high);
    for (int plane = 0; plane < in.planes; ++plane) {
      const auto [first, count] = planes_.span(plane);
      const Target<Number> target{out, column + first, count, bias ? bias + first : nullptr, relu};
      for (int u = low; u < high; ++u) {
        const int y = u / pieces, p = u % pieces * MOST, end = std::min(length, p + MOST);
        alignas(64) float results[MOST * SQUARE_DEPTH];
        multiply_piece(in.at(y * stride_ - 1, p * stride_ - 1, plane), in, plane, end - p, results);
        for (int k = p; k < end; ++k)
          if (k % columns < out.width)
            target.write(y + k / columns, k % columns, results, k - p, planes_.slot);
      }
    }
  }

 private:
  static constexpr int MOST = 4 * SQUARE;  // places of a product

  // Where a plane's results go.
  template <class Number>
  struct Target {
    const MapOf<Number>& out;
    int column, count;
    const float* bias;
    bool relu;
    void write(int y, int x, const float* results, int row, int slot) const {
      Number* to = out.at(y * out.width + x) + column;
      for (int c = 0; c < count; c += LANES) {
        Vector value = load(results + row * slot + c);
        if (bias) value += load(bias + c);
        store_some(to + c, relu ? densepath::relu(value) : value, count - c);
      }
    }
  };

  // results [places, slot] of those from `from` on.
  void multiply_piece(const float* from, const Padded& in, int plane, int places,
                      float* results) const {
    multiply_taps(from, 2 * in.ld, in.whole_width, weights_[plane], round_up(places, SQUARE),
                  results, {}, stride_);
  }

  int stride_ = 1;
  Planes planes_{0, 1};
  std::vector<PackedPairs> weights_;  // of each plane
};

}  // namespace densepath
