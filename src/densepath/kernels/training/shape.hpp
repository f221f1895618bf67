// The sizes of a 3×3 convolution.
#pragma once

#include "maps.hpp"

namespace densepath {

struct Shape {
  int height, width, inputs, outputs, groups, stride;
  int high, wide;  // of the outputs

  template <class Number>
  Shape(const MapsOf<Number>& x, int outputs_, int groups_, int stride_)
      : height(x.height),
        width(x.width),
        inputs(x.channels),
        outputs(outputs_),
        groups(groups_),
        stride(stride_),
        high((x.height + stride_ - 1) / stride_),
        wide((x.width + stride_ - 1) / stride_) {}
  int group_inputs() const { return inputs / groups; }
  int group_outputs() const { return outputs / groups; }
};

// Rows [low, high) of an image's outputs.
struct Band {
  int image, low, high;
};

// One of the bands of all images, which have so many each, of `rows` of their `high`.
inline Band band_of(int64_t number, int bands, int rows, int high) {
  const int low = static_cast<int>(number % bands) * rows;
  return {static_cast<int>(number / bands), std::min(low, high), std::min(low + rows, high)};
}

}  // namespace densepath
