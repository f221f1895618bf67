// The memory that a run works in, and where it waits between two runs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "int8.hpp"
#include "matrix.hpp"

namespace densepath {

// Memory for one image on its way; `memory_plan.hpp` says how much of each.
struct Workspace {
  Floats image, stem;      // what the stem reads and, where a pooling follows, writes
  Floats maps[2];          // the state, and the one before it
  Floats padded, between;  // what a 3×3 reads, and a 1×1 behind it
  ByteBuffer byte_image, byte_padded, byte_between;  // the same as levels
};

// Things that are taken, used and given back by many threads.
template <class T>
class Pool {
 public:
  template <class Make>
  std::unique_ptr<T> take(const Make& make) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!held_.empty()) {
        auto one = std::move(held_.back());
        held_.pop_back();
        return one;
      }
    }
    return make();
  }
  void give(std::unique_ptr<T> one) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.push_back(std::move(one));
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> held_;
};

}  // namespace densepath
