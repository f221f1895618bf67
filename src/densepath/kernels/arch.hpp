// What a network is, as numbers, and its tensors. No vectors here: any program may include this.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace densepath {

enum class StemPool { none, pad1, same };

// The numbers of `ModelSpec.arch` (models/spec.py), and what the images are.
struct Arch {
  bool dual = false;  // a DPN
  StemPool stem_pool = StemPool::none;  // none: the stem for small images
  int stem_width = 0;
  double bn_eps = 0;
  std::vector<int> blocks;
  // DenseNet
  int growth_rate = 0, bottleneck = 0;
  // DPN
  int k_r = 0, groups = 0, base_factor = 0;
  std::vector<int> dense_increment;
  // The channels of the images, and their usual size, which says where Winograd's way will pay;
  // images of other sizes are taken too.
  int channels = 0, height = 0, width = 0;

  // The smallest side that leaves a last map of one pixel.
  int least_side() const {
    return 1 << (blocks.size() - 1 + (stem_pool == StemPool::none ? 0 : 2));
  }
};

// Floats, or the bytes of quantised weights.
struct Tensor {
  const float* data;
  int64_t count;
  const int8_t* bytes = nullptr;
};

// By the names of `build_model`'s network.
using Tensors = std::unordered_map<std::string, Tensor>;

}  // namespace densepath
