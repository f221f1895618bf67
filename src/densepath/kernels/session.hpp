// Batches through a network, on any number of threads.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "memory_plan.hpp"
#include "network.hpp"
#include "walk.hpp"
#include "workspace.hpp"

namespace densepath {

// Threads meet after each layer of an image: below so many pixels a thread the meeting costs more.
constexpr int64_t PIXELS_A_THREAD = 2048;

// A network and the memory that its runs share.
class Session {
 public:
  explicit Session(Network network) : network_(std::move(network)) {}

  // images [count, channels, height, width] → logits [count, classes], by at most so many threads.
  // Whole images are shared out among them; those left over are worked on by all together. Throws
  // std::system_error: no thread could be started.
  void run(const float* images, int count, int height, int width, float* logits, int threads) {
    prepare(height, width);
    const int64_t pixels = static_cast<int64_t>(count) * height * width;
    threads = static_cast<int>(std::min<int64_t>(threads, pixels / PIXELS_A_THREAD));
    threads = std::max(1, threads);
    std::vector<float> features(static_cast<size_t>(count) * network_.num_features + LANES);
    const size_t image = static_cast<size_t>(network_.stem.channels) * height * width;
    const int whole = count / threads * threads;
    std::vector<std::unique_ptr<Workspace>> spaces(threads);
    std::vector<std::unique_ptr<Scratch>> own(threads);
    for (int i = 0; i < threads; ++i) {
      own[i] = scratches_.take([] { return std::make_unique<Scratch>(); });
      if (i == 0 || whole) spaces[i] = workspace(height, width);
    }
    std::atomic<int> next{0};
    Barrier together;
    const auto work = [&](int index) {
      const auto answer = [&](int k, Workspace& space, Part part) {
        Walk(network_, space, *own[index], part)
            .run(images + k * image, height, width,
                 features.data() + static_cast<size_t>(k) * network_.num_features);
      };
      Barrier alone;
      for (int k; (k = next.fetch_add(1)) < whole;) answer(k, *spaces[index], {0, 1, &alone});
      if (whole == count) return;
      together.wait(threads);
      if (together.abandoned()) return;
      for (int k = whole; k < count; ++k) answer(k, *spaces[0], {index, threads, &together});
    };
    std::vector<std::thread> others;
    const auto join = [&] {
      for (std::thread& other : others) other.join();
    };
    try {
      for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
    } catch (...) {  // No more can be started: those that were must end first.
      next.store(whole);
      together.abandon();
      join();
      throw;
    }
    work(0);
    join();
    network_.classify(features.data(), count, logits, *own[0]);
    for (auto& one : spaces)
      if (one) give_back(std::move(one), height, width);
    for (auto& one : own) scratches_.give(std::move(one));
  }

  const Network& network() const { return network_; }

 private:
  // One pooled workspace size at a time: another size lets go of the last one's memory.
  void prepare(int height, int width) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (height != height_ || width != width_) workspaces_.clear();
    height_ = height;
    width_ = width;
  }
  void give_back(std::unique_ptr<Workspace> one, int height, int width) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (height == height_ && width == width_) workspaces_.give(std::move(one));
  }
  std::unique_ptr<Workspace> workspace(int height, int width) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (height != height_ || width != width_) return make_workspace(network_, height, width);
    return workspaces_.take([&] { return make_workspace(network_, height, width); });
  }

  Network network_;
  Pool<Scratch> scratches_;
  Pool<Workspace> workspaces_;
  std::mutex mutex_;
  int height_ = 0, width_ = 0;  // that the pooled workspaces are made for
};

}  // namespace densepath
