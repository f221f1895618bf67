// Tensors of a quantised checkpoint → the INT8 layers.
//
// Of an INT8 layer NAME they are: `NAME.weight` bytes, `NAME.scale` and `NAME.bias` of its outputs,
// `NAME.input_scale` and `NAME.input_shift` of its inputs (levels = value · scale + shift, in which
// the BatchNorm before it is contained). `quantize/native.py` writes them.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "arch.hpp"
#include "int8_layers.hpp"
#include "int8_stem.hpp"

namespace densepath {

class ByteBuilder {
 public:
  explicit ByteBuilder(const Tensors& tensors) : tensors_(tensors) {}

  // Whether the layer is INT8.
  bool has(const std::string& name) const {
    const auto found = tensors_.find(name + ".weight");
    return found != tensors_.end() && found->second.bytes;
  }

  // Outputs from `first` on, `rows` of `all`; `next` is the layer that reads them as levels.
  BytePointwise pointwise(const std::string& name, int inputs, int all, int first, int rows,
                          const std::string& next) const {
    BytePointwise layer;
    layer.inputs = inputs;
    layer.entry = levels(name, inputs);
    const std::vector<int8_t> weights = laid_out(name, all, inputs, 1, round_up(inputs, 4));
    const int quads = (inputs + 3) / 4;
    layer.weights =
        PackedBytes(weights.data() + static_cast<size_t>(first) * quads * 4, quads, rows);
    layer.ending = ending(name, all, first, rows, next);
    return layer;
  }

  ByteConvolution convolution(const std::string& name, int inputs, int all, int groups, int stride,
                              const std::string& next) const {
    ByteConvolution layer;
    layer.inputs = inputs;
    layer.outputs = all;
    layer.stride = stride;
    layer.group_width = inputs / groups;
    layer.group_room = round_up(layer.group_width, 4);
    layer.ld = static_cast<long>(groups) * layer.group_room;
    layer.entry = levels(name, inputs);
    layer.ending = ending(name, all, 0, all, next);
    const int room = layer.group_room, each = all / groups;
    const std::vector<int8_t> weights = laid_out(name, all, layer.group_width, 9, room);
    if (groups > 1 && inputs == all && are_narrow(all, each, room)) {
      layer.narrow = narrow_groups(weights.data(), all, each, room);
      return layer;
    }
    for (int g = 0; g < groups; ++g)
      layer.groups.emplace_back(weights.data() + static_cast<size_t>(g) * each * 9 * room,
                                9 * room / 4, each);
    return layer;
  }

  ByteStem stem(const std::string& name, int channels, int taps, int outputs, bool relu) const {
    ByteStem made;
    made.channels = channels;
    made.room = round_up(channels, 4);
    const float* scale = floats_of(name + ".input_scale", channels);
    const float* zero = floats_of(name + ".input_shift", channels);
    made.scale.assign(scale, scale + channels);
    made.zero.assign(zero, zero + channels);
    const std::vector<int8_t> weights = laid_out(name, outputs, channels, taps, made.room);
    made.weights = PackedBytes(weights.data(), taps * made.room / 4, outputs);
    made.ending = ending(name, outputs, 0, outputs, "");
    made.ending.relu = relu;
    return made;
  }

  ByteClassifier classifier(int inputs, int classes) const {
    const std::string name = "classifier";
    const std::vector<int8_t> weights = laid_out(name, classes, inputs, 1, round_up(inputs, 4));
    ByteEnding numbers = ending(name, classes, 0, classes, "");
    return {PackedBytes(weights.data(), (inputs + 3) / 4, classes), std::move(numbers.scale),
            std::move(numbers.bias)};
  }

 private:
  const Tensor& tensor(const std::string& name, int64_t count) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw std::runtime_error("it has no tensor " + name);
    if (found->second.count != count)
      throw std::runtime_error(name + " has " + std::to_string(found->second.count) +
                               " numbers, and the network needs " + std::to_string(count));
    return found->second;
  }

  const float* floats_of(const std::string& name, int64_t count) const {
    const float* data = tensor(name, count).data;
    if (!data) throw std::runtime_error(name + " is bytes, and the network needs floats");
    return data;
  }

  Levels levels(const std::string& name, int inputs) const {
    return {held(floats_of(name + ".input_scale", inputs), inputs),
            held(floats_of(name + ".input_shift", inputs), inputs)};
  }

  // As many numbers as whole vectors and quads read.
  static Floats held(const float* values, int count) {
    Floats made = floats(round_up(count, 64));
    std::copy(values, values + count, made.get());
    return made;
  }

  ByteEnding ending(const std::string& name, int all, int first, int rows,
                    const std::string& next) const {
    ByteEnding made{held(floats_of(name + ".scale", all) + first, rows),
                    held(floats_of(name + ".bias", all) + first, rows)};
    if (next.empty() || !has(next)) {
      made.relu = !next.empty();
      return made;
    }
    made.levels = true;
    const float* scale = floats_of(next + ".input_scale", all);
    for (int o = 0; o < rows; ++o) {
      made.scale[o] *= scale[first + o];
      made.bias[o] *= scale[first + o];
    }
    return made;
  }

  // [outputs, inputs, taps] → [outputs, taps, room]
  std::vector<int8_t> laid_out(const std::string& name, int outputs, int inputs, int taps,
                               int room) const {
    const int64_t count = static_cast<int64_t>(outputs) * inputs * taps;
    const int8_t* from = tensor(name + ".weight", count).bytes;
    std::vector<int8_t> to(static_cast<size_t>(outputs) * taps * room);
    for (int o = 0; o < outputs; ++o)
      for (int i = 0; i < inputs; ++i)
        for (int t = 0; t < taps; ++t)
          to[(static_cast<size_t>(o) * taps + t) * room + i] = *from++;
    return to;
  }

  const Tensors& tensors_;
};

}  // namespace densepath
