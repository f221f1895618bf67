// The numbers of an architecture → the plan of its layers, as models/plan.py makes it.
//
// A checkpoint says its numbers alone, so that no file can hold a plan that is another network's.
// `tests/flow/test_cpp_plan.py` holds this twin to the one in Python, number by number.
#pragma once

#include <vector>

#include "plan.hpp"

namespace densepath {

// The numbers of `ModelSpec.arch` (models/spec.py).
struct Arch {
  bool dual = false;   // a DPN
  bool small = false;  // the stem for small images
  StemPool stem_pool = StemPool::pad1;
  int stem_width = 0;
  double bn_eps = 0;
  std::vector<int> blocks;
  // DenseNet
  int growth_rate = 0, bottleneck = 0;
  double compression = 0;
  // DPN
  int stem_kernel = 0, k_r = 0, groups = 0, base_factor = 0;
  std::vector<int> dense_increment;
};

// The layers in the order in which they run.
//
// Throws std::runtime_error: a number that no network has.
Plan plan_of(const Arch& arch);

}  // namespace densepath
