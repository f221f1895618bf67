// Memory of a pass that its thread keeps for the next: the system's is slow to get and to clear.
#pragma once

#include <vector>

#include "../matrix.hpp"

namespace densepath {

// Unset floats, aligned, with a vector to spare; to be given back by the thread that took them.
class Scratch {
 public:
  explicit Scratch(size_t count) {
    std::vector<Block>& kept = blocks();
    size_t best = kept.size();
    for (size_t k = 0; k < kept.size(); ++k)
      if (kept[k].count >= count && (best == kept.size() || kept[k].count < kept[best].count))
        best = k;
    if (best < kept.size()) {
      block_ = std::move(kept[best]);
      kept.erase(kept.begin() + static_cast<long>(best));
      return;
    }
    if (!kept.empty()) kept.pop_back();  // too small: not to be kept beside the larger one
    block_ = {unset(count), count};
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { blocks().push_back(std::move(block_)); }

  float* get() const { return block_.data.get(); }

 private:
  struct Block {
    Floats data;
    size_t count = 0;
  };
  static std::vector<Block>& blocks() {
    thread_local std::vector<Block> kept;
    return kept;
  }
  Block block_;
};

}  // namespace densepath
