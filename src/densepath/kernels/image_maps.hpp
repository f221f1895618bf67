// Maps whose channels stand side by side, the threads that share them out, and their memory.
//
// A map is rows of channels, one row a pixel, `ld` floats apart.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "bfloat16.hpp"
#include "matrix.hpp"
#include "winograd.hpp"

namespace densepath {

// Threads that work on one image meet here after each layer.
class Barrier {
 public:
  void wait(int count) {
    if (count == 1) return;
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase && !abandoned(); ++spins)
      if (spins > 2000) std::this_thread::yield();
  }

  // Not all will come: those that wait need wait no longer.
  void abandon() { abandoned_.store(true, std::memory_order_release); }
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }

 private:
  std::atomic<int> arrived_{0}, phase_{0};
  std::atomic<bool> abandoned_{false};
};

// Which thread of how many this is.
struct Part {
  int index, count;
  Barrier* barrier;
  void meet() const { barrier->wait(count); }
  // This thread's share of `total`, as [low, high).
  void share(int total, int& low, int& high) const {
    low = static_cast<int>(static_cast<int64_t>(total) * index / count);
    high = static_cast<int>(static_cast<int64_t>(total) * (index + 1) / count);
  }
  // Rows of one product where `total` are to be shared: every thread has as many products.
  int rows(int total) const {
    const int products = round_up((total + ROWS - 1) / ROWS, count);
    return std::max(MR, (total + products - 1) / products);
  }
};

// A thread's own memory.
struct Scratch {
  Floats left = floats(static_cast<size_t>(ROWS) * LDA);
  Floats entered = floats(static_cast<size_t>(POINTS) * TILES * LDA);
  std::vector<float> results;
  std::vector<uint8_t> levels, middle;
  float* result(size_t count) {
    if (results.size() < count + LANES) results.resize(count + LANES);
    return results.data();
  }
  uint8_t* level(size_t count) {
    if (levels.size() < count) levels.resize(count);
    return levels.data();
  }
  uint8_t* between(size_t count) {
    if (middle.size() < count) middle.resize(count);
    return middle.data();
  }
};

template <class T>
struct MapOf {
  T* data;
  int height, width;
  long ld;
  int pixels() const { return height * width; }
  T* at(int pixel) const { return data + static_cast<size_t>(pixel) * ld; }
};
using Map = MapOf<float>;
using HalfMap = MapOf<BFloat16>;

// A map with a border of zeros: one pixel, and what whole tiles need to the right and below. In
// planes, each a map of some of the channels, if a product wants them apart.
template <class T>
struct PaddedOf {
  T* data;
  int height, width, whole_height, whole_width;
  long ld;
  int planes = 1;
  T* at(int y, int x, int plane = 0) const {  // of the inside; −1 is the border
    const size_t row = static_cast<size_t>(plane) * whole_height + y + 1;
    return data + (row * whole_width + x + 1) * ld;
  }
  static PaddedOf of(T* data, int height, int width, long ld) {
    return {data, height, width, round_up(height, TILE) + 2, round_up(width, TILE) + 2, ld};
  }
  size_t size() const { return static_cast<size_t>(planes) * whole_height * whole_width * ld; }
  bool like(const PaddedOf& other) const {
    return data == other.data && height == other.height && width == other.width && ld == other.ld &&
           planes == other.planes;
  }
  void clear_border(Part part) const {
    int low, high;
    part.share(planes * whole_height, low, high);
    for (int line = low; line < high; ++line) {
      T* row = data + static_cast<size_t>(line) * whole_width * ld;
      const int y = line % whole_height;
      const bool outside = y == 0 || y > height;
      if (outside) {
        std::memset(row, 0, sizeof(T) * whole_width * ld);
      } else {
        std::memset(row, 0, sizeof(T) * ld);
        std::memset(row + (width + 1) * ld, 0, sizeof(T) * (whole_width - width - 1) * ld);
      }
    }
  }
};
using Padded = PaddedOf<float>;

}  // namespace densepath
