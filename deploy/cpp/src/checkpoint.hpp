// A checkpoint file (safetensors) → the network's numbers and its tensors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arch.hpp"
#include "bundle.hpp"
#include "tensors.hpp"

namespace densepath {

// Tensors point into the file's bytes, or into `aligned` where those do not suit.
struct Checkpoint {
  Arch arch;
  int channels = 0;  // of the images
  Tensors tensors;
  std::vector<std::unique_ptr<float[]>> aligned;
};

// What the bytes of `file` (model.safetensors, model-int8.safetensors) hold; they must outlive the
// result.
//
// Throws BundleError: they are no whole checkpoint of densepath's, or one of another format.
Checkpoint read_checkpoint(const Contents& file, const std::string& name);

}  // namespace densepath
