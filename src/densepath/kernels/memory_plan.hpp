// How much memory a network needs for images of a size: the largest of all that is ever held in
// the same place.
#pragma once

#include "network.hpp"
#include "workspace.hpp"

namespace densepath {

// Numbers, or bytes, of each part of a Workspace.
struct MemoryPlan {
  size_t image = 0, stem = 0, maps[2] = {0, 0}, padded = 0, between = 0;
  size_t byte_padded = 0, byte_between = 0;
};

namespace detail {

struct Size {
  int height, width;
  size_t pixels() const { return static_cast<size_t>(height) * width; }
};

inline void at_least(size_t& held, size_t wanted) { held = std::max(held, wanted); }

}  // namespace detail

inline MemoryPlan plan_memory(const Network& network, int height, int width) {
  using namespace detail;
  MemoryPlan made;
  const Stem& stem = network.stem;
  const int border = stem.kernel / 2 * 2;
  made.image = Size{height + border, width + border}.pixels();
  Size state{stem.side(height), stem.side(width)};
  if (stem.is_pooled()) made.stem = state.pixels() * stem.outputs;
  state = {stem.pooled(state.height), stem.pooled(state.width)};
  int current = 0;
  made.maps[current] = state.pixels() * network.stem_ld;
  Size found = state, handed = state;
  for (const Layer& layer : network.layers) {
    if (layer.begins) found = state;
    const Size in = layer.from_state ? found : handed;
    const Size out{layer.side(in.height), layer.side(in.width)};
    if (const auto* conv = std::get_if<Convolution>(&layer.form))
      at_least(made.padded, conv->padded(nullptr, in.height, in.width).size());
    if (const auto* conv = std::get_if<ByteConvolution>(&layer.form))
      at_least(made.byte_padded, conv->padded(nullptr, in.height, in.width).size());
    switch (layer.to) {
      case Destination::opened:
        state = out;
        current = 1 - current;
        at_least(made.maps[current], out.pixels() * layer.ld);
        break;
      case Destination::between:
        at_least(made.between, out.pixels() * layer.outputs);
        handed = out;
        break;
      case Destination::halves:
        at_least(made.between, out.pixels() * round_up(layer.outputs, LANES) / 2);
        handed = out;
        break;
      case Destination::levels:
        at_least(made.byte_between, out.pixels() * round_up(layer.outputs, 4));
        handed = out;
        break;
      case Destination::padded:
        handed = out;
        break;
      case Destination::state:
        break;
    }
  }
  return made;
}

inline std::unique_ptr<Workspace> make_workspace(const Network& network, int height, int width) {
  const MemoryPlan plan = plan_memory(network, height, width);
  auto made = std::make_unique<Workspace>();
  if (const auto* stem = std::get_if<ByteStem>(&network.stem.form))
    made->byte_image = stem->blank(plan.image);
  else
    made->image = floats(plan.image * network.stem.channels);
  made->stem = floats(plan.stem);
  for (int i = 0; i < 2; ++i) made->maps[i] = floats(plan.maps[i]);
  made->padded = floats(plan.padded);
  made->between = floats(plan.between);
  made->byte_padded = bytes(plan.byte_padded);
  made->byte_between = bytes(plan.byte_between);
  return made;
}

}  // namespace densepath
