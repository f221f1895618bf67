// An image's way through a network.
#pragma once

#include <type_traits>
#include <variant>

#include "network.hpp"
#include "workspace.hpp"

namespace densepath {

// By one of the threads that work on the image; all of them walk the same way.
class Walk {
 public:
  Walk(const Network& network, Workspace& shared, Scratch& own, Part part)
      : network_(network), shared_(shared), own_(own), part_(part) {}

  // image [channels, height, width] → features [num_features]
  void run(const float* image, int height, int width, float* features) {
    const Stem& stem = network_.stem;
    state_ = {shared_.maps[0].get(), stem.pooled(stem.side(height)), stem.pooled(stem.side(width)),
              network_.stem_ld};
    stem.run(image, height, width, state_, shared_, own_, part_);
    const std::vector<Layer>& layers = network_.layers;
    for (size_t i = 0; i < layers.size(); ++i) {
      const Layer& layer = layers[i];
      if (layer.begins) found_ = state_;
      std::visit([&](const auto& form) { run_layer(form, layer, &layer + 1); }, layer.form);
      if (layer.meets) part_.meet();
    }
    average(features);
  }

 private:
  // A 1×1; `next` is looked at only if it is written for.
  template <class Form>
  void run_layer(const Form& form, const Layer& layer, const Layer* next) {
    if constexpr (std::is_same_v<Form, BytePointwise>)
      if (const auto* levels = std::get_if<ByteMap>(&handed_); levels && !layer.from_state)
        return form.run(*levels, state_, layer.column, layer.add, part_);
    if constexpr (std::is_same_v<Form, Pointwise>)
      if (const auto* halves = std::get_if<HalfMap>(&handed_); halves && !layer.from_state)
        return form.run(*halves, state_, layer.column, layer.add, part_, own_);
    const Map in = map_of(layer);
    if (layer.to == Destination::padded) return fill(form, in, *next);
    const Map out = output(layer, in.height, in.width);
    form.run(in, out, layer.column, layer.add, part_, own_);
  }

  void run_layer(const Convolution& form, const Layer& layer, const Layer*) {
    const Padded in = entered<Padded>(form, layer);
    if (layer.to == Destination::halves) {
      const HalfMap made{reinterpret_cast<BFloat16*>(shared_.between.get()), layer.side(in.height),
                         layer.side(in.width), round_up(layer.outputs, LANES)};
      form.run(in, made, part_);
      handed_ = made;
      return;
    }
    form.run(in, output(layer, in.height, in.width), layer.column, part_, own_);
  }

  void run_layer(const ByteConvolution& form, const Layer& layer, const Layer*) {
    const PaddedBytes in = entered<PaddedBytes>(form, layer);
    if (layer.to != Destination::levels)
      return form.run(in, output(layer, in.height, in.width), layer.column, part_);
    const ByteMap out{shared_.byte_between.get(), layer.side(in.height), layer.side(in.width),
                      round_up(layer.outputs, 4)};
    form.run(in, out, part_);
    handed_ = out;
  }

  // The floats that the layer reads.
  Map map_of(const Layer& layer) const {
    return layer.from_state ? found_ : std::get<Map>(handed_);
  }

  // Where it writes floats, of a map of this size.
  Map output(const Layer& layer, int height, int width) {
    if (layer.to == Destination::state) return state_;
    height = layer.side(height);
    width = layer.side(width);
    if (layer.to == Destination::between) {
      const Map made{shared_.between.get(), height, width, layer.outputs};
      handed_ = made;
      return made;
    }
    current_ = 1 - current_;
    state_ = {shared_.maps[current_].get(), height, width, layer.ld};
    return state_;
  }

  // What the 3×3 behind a 1×1 reads, by that 1×1.
  template <class Form>
  void fill(const Form& form, const Map& in, const Layer& next) {
    if constexpr (std::is_same_v<Form, BytePointwise>)
      if (const auto* conv = std::get_if<ByteConvolution>(&next.form)) {
        const PaddedBytes made = padded_of(*conv, in.height, in.width);
        form.run(in, made, *conv, part_, own_);
        handed_ = made;
        return;
      }
    const auto& conv = std::get<Convolution>(next.form);
    const Padded made = padded_of(conv, in.height, in.width);
    if constexpr (std::is_same_v<Form, BytePointwise>)
      form.run(in, made, part_, own_);
    else
      form.run(in, made, conv, part_, own_);
    handed_ = made;
  }

  // What a 3×3 reads: made by the layer before it, or here of floats.
  template <class In, class Form>
  In entered(const Form& form, const Layer& layer) {
    if (const auto* made = std::get_if<In>(&handed_); made && !layer.from_state) return *made;
    const Map in = map_of(layer);
    const In made = padded_of(form, in.height, in.width);
    form.enter(in, made, part_, own_);
    part_.meet();
    return made;
  }

  Padded padded_of(const Convolution& form, int height, int width) {
    return bordered(form.padded(shared_.padded.get(), height, width), floats_);
  }
  PaddedBytes padded_of(const ByteConvolution& form, int height, int width) {
    return bordered(form.padded(shared_.byte_padded.get(), height, width), bytes_);
  }

  // The border of `padded` is zero; `last` was the last map in that memory.
  template <class T>
  PaddedOf<T> bordered(const PaddedOf<T>& padded, PaddedOf<T>& last) const {
    if (!padded.like(last)) padded.clear_border(part_);
    return last = padded;
  }

  void average(float* features) const {
    const int num_features = network_.num_features;
    int low, high;
    part_.share((num_features + LANES - 1) / LANES, low, high);
    for (int c = low * LANES; c < high * LANES; c += LANES) {
      Vector sum = splat(0.0f);
      for (int p = 0; p < state_.pixels(); ++p)
        sum += network_.last.apply(load(state_.at(p) + c), c);
      store_some(features + c, sum / splat(static_cast<float>(state_.pixels())), num_features - c);
    }
    part_.meet();
  }

  const Network& network_;
  Workspace& shared_;
  Scratch& own_;
  const Part part_;
  Map state_{}, found_{};  // the state now, and as the part found it
  int current_ = 0;        // of the two maps, the state's
  std::variant<Map, HalfMap, ByteMap, Padded, PaddedBytes> handed_;  // from a layer to the next
  Padded floats_{};
  PaddedBytes bytes_{};
};

}  // namespace densepath
