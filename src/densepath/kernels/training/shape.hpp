// The sizes of a 3×3 convolution.
#pragma once

#include "maps.hpp"

namespace densepath {

struct Shape {
  int height, width, inputs, outputs, groups, stride;
  int high, wide;  // of the outputs

  Shape(const Maps& x, int outputs_, int groups_, int stride_)
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

}  // namespace densepath
