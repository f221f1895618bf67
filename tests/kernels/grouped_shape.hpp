// What the checks of 3×3 convolutions at inference are of.
#pragma once

#include <string>

namespace reference {

// A convolution with one pixel of padding, and among how many threads it is shared out.
struct GroupedShape {
  int height, width, groups, group_width, group_outputs, stride, threads;

  int inputs() const { return groups * group_width; }
  int outputs() const { return groups * group_outputs; }
  int high() const { return (height + stride - 1) / stride; }
  int wide() const { return (width + stride - 1) / stride; }
  std::string name() const {
    std::string made;
    for (const int n : {height, width, groups, group_width, group_outputs, stride, threads})
      made += std::to_string(n) + " ";
    return made;
  }
};

}  // namespace reference
