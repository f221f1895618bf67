// A batch spread over the cores: each computes the whole network on its part.
//
// Cores that share each layer wait for one another at every layer; cores that each run the whole
// network do not. Only an image that comes alone is run on all of them, by a form of the network
// that is made when the first one comes. As engines/modes.py does.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace densepath {

// The network on `count` images: reads them and writes their logits. Safe to call from as many
// threads as there are streams.
using RunPart = std::function<void(const float* images, size_t count, float* logits)>;

// Images of one call: few keep the maps of one core in its caches.
constexpr size_t MOST_OF_PART = 2;

// How a batch is laid out, and on how many streams it is computed.
struct Layout {
  size_t streams = 1;
  size_t image_values = 0;  // Numbers of one image.
  size_t num_classes = 0;
};

class Spread {
 public:
  Spread(Layout layout, RunPart run_part, std::function<RunPart()> build_alone);

  // [count, …] → logits [count, num_classes]. One thread at a time. Rethrows what a part threw.
  std::vector<float> run(const std::vector<float>& images, size_t count);

  // As `run`, by one stream and in one call; as many threads as there are streams may call it.
  std::vector<float> run_share(const std::vector<float>& images, size_t count) const;

 private:
  void run_parts(const float* images, size_t count, float* logits);

  Layout layout_;
  RunPart run_part_;
  std::function<RunPart()> build_alone_;
  RunPart alone_;
};

}  // namespace densepath
