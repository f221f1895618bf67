// The layers of both families on maps whose channels stand side by side.
//
// The features of a block grow in one map: every layer writes its own columns, so that nothing is
// ever concatenated. BatchNorm and ReLU in front of a convolution are applied while its input is
// laid out for the product.
#pragma once

#include <type_traits>

#include "bfloat16.hpp"
#include "convolution3x3.hpp"
#include "image_maps.hpp"
#include "matrix.hpp"
#include "plan.hpp"

namespace densepath {

enum class Reading { every_pixel, every_second, averages };  // of a map, by a 1×1 convolution

inline Reading reading_of(const PlanLayer& row) {
  if (row.averaged) return Reading::averages;
  return row.stride == 2 ? Reading::every_second : Reading::every_pixel;
}

// BN-ReLU-1×1, or 1×1 alone; of every pixel, every second one, or of 2×2 averages after the ReLU.
struct Pointwise {
  Norm norm;
  Packed weights;
  PackedPairs pairs;  // in place of `weights`, of a layer in bfloat16
  int outputs = 0;
  Floats bias;
  bool relu = false;
  Reading reading = Reading::every_pixel;

  Ending ending(bool add) const { return {bias.get(), add, relu}; }

  template <class Number>
  void lay_out(const Map& in, int width, int first_pixel, int rows, int first, int count,
               Number* to) const {
    const int step = reading == Reading::every_pixel ? 1 : 2;
    for (int r = 0; r < rows; ++r, to += APART<Number>) {
      const int p = first_pixel + r;
      const float* from = in.at(step == 1 ? p : p / width * 2 * in.width + p % width * 2) + first;
      if (!norm) {
        copy(to, from, count);
      } else if (reading != Reading::averages) {
        for (int k = 0; k < count; k += LANES) store(to + k, norm.apply(load(from + k), first + k));
      } else {
        const float* below = from + in.width * in.ld;
        for (int k = 0; k < count; k += LANES) {
          const int c = first + k;
          const Vector sum = norm.apply(load(from + k), c) + norm.apply(load(from + in.ld + k), c) +
                             norm.apply(load(below + k), c) +
                             norm.apply(load(below + in.ld + k), c);
          store(to + k, sum * 0.25f);
        }
      }
    }
  }

  // Of numbers that are what the product reads, of every pixel.
  void lay_out(const HalfMap& in, int, int first_pixel, int rows, int first, int count,
               BFloat16* to) const {
    for (int r = 0; r < rows; ++r, to += APART<BFloat16>)
      std::memcpy(to, in.at(first_pixel + r) + first, sizeof(BFloat16) * count);
  }

  // Pixels from `first_pixel` on, `rows` of them, of an output that is `width` wide.
  template <class Number>
  void multiply_rows(const MapOf<Number>& in, int width, int first_pixel, int rows, float* to,
                     long ld, Ending ending, Scratch& own) const {
    const auto pack = [&](int first, int count, auto* left) {
      lay_out(in, width, first_pixel, rows, first, count, left);
    };
    if (pairs) return product(pairs, rows, pack, to, ld, ending, own.left.get());
    if constexpr (std::is_same_v<Number, float>)
      product(weights, rows, pack, to, ld, ending, own.left.get());
  }

  // Columns of `out` from `column` on; added to what stands there if `add`.
  template <class Number>
  void run(const MapOf<Number>& in, const Map& out, int column, bool add, Part part,
           Scratch& own) const {
    const int step = part.rows(out.pixels());
    int low, high;
    part.share((out.pixels() + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, out.pixels() - p);
      multiply_rows(in, out.width, p, rows, out.at(p) + column, out.ld, ending(add), own);
    }
  }

  // The inside of the padded map that `next` reads.
  void run(const Map& in, const Padded& out, const Convolution& next, Part part,
           Scratch& own) const {
    const long ld = round_up(outputs, LANES);
    const int total = out.height * out.width, step = part.rows(total);
    int low, high;
    part.share((total + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, total - p);
      float* results = own.result(static_cast<size_t>(rows) * ld);
      multiply_rows(in, out.width, p, rows, results, ld, ending(false), own);
      for (int r = 0; r < rows; ++r)
        next.place(results + r * ld, out, (p + r) / out.width, (p + r) % out.width);
    }
  }
};

// The last layer: features [count, inputs] → logits [count, classes].
struct FloatClassifier {
  Packed weights;
  Floats bias;
  int classes() const { return weights.outputs; }

  void run(const float* features, int count, int inputs, float* logits, Scratch& own) const {
    for (int p = 0; p < count; p += ROWS) {
      const int rows = std::min(ROWS, count - p);
      product(
          weights, rows,
          [&](int first, int length, float* to) {
            for (int r = 0; r < rows; ++r)
              std::memcpy(to + static_cast<long>(r) * LDA,
                          features + static_cast<size_t>(p + r) * inputs + first,
                          sizeof(float) * length);
          },
          logits + static_cast<size_t>(p) * weights.outputs, weights.outputs,
          {bias.get(), false, false}, own.left.get());
    }
  }
};

}  // namespace densepath
