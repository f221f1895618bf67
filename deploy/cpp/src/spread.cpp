#include "spread.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <utility>

namespace densepath {

Spread::Spread(Layout layout, RunPart run_part, std::function<RunPart()> build_alone)
    : layout_(layout), run_part_(std::move(run_part)), build_alone_(std::move(build_alone)) {}

std::vector<float> Spread::run(const std::vector<float>& images, size_t count) {
  std::vector<float> logits(count * layout_.num_classes);
  if (count == 1 && layout_.streams > 1) {
    if (!alone_) alone_ = build_alone_();
    alone_(images.data(), count, logits.data());
  } else if (count > 0) {
    run_parts(images.data(), count, logits.data());
  }
  return logits;
}

std::vector<float> Spread::run_share(const std::vector<float>& images, size_t count) const {
  std::vector<float> logits(count * layout_.num_classes);
  if (count > 0) run_part_(images.data(), count, logits.data());
  return logits;
}

// Streams take one part after another until none is left.
void Spread::run_parts(const float* images, size_t count, float* logits) {
  const size_t streams = std::min(layout_.streams, count);
  const size_t rounds = (count + MOST_OF_PART * streams - 1) / (MOST_OF_PART * streams);
  const size_t num_parts = std::min(rounds * streams, count);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t part = next++; part < num_parts; part = next++) {
      const size_t start = count * part / num_parts;
      const size_t end = count * (part + 1) / num_parts;
      run_part_(images + start * layout_.image_values, end - start,
                logits + start * layout_.num_classes);
    }
  };
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < streams; ++i) {
    others.push_back(std::async(std::launch::async, work));
  }
  work();
  for (std::future<void>& other : others) other.get();
}

}  // namespace densepath
