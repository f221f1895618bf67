// Tensors of a quantised checkpoint → the INT8 layers.
//
// Of an INT8 layer NAME they are: `NAME.weight` bytes, `NAME.scale` and `NAME.bias` of its outputs,
// `NAME.input_scale` and `NAME.input_shift` of its inputs (levels = value · scale + shift, in which
// the BatchNorm before it is contained). `quantize/native.py` writes them.
#pragma once

#include <string>
#include <vector>

#include "int8_layers.hpp"
#include "int8_stem.hpp"
#include "plan.hpp"
#include "tensors.hpp"

namespace densepath {

class ByteBuilder {
 public:
  // The tensors must live as long as the builder.
  explicit ByteBuilder(const Tensors& tensors) : tensors_(tensors) {}

  // Outputs from `first` on, `rows` of them; `next` is the layer that reads them, if one does.
  BytePointwise pointwise(const PlanLayer& row, int first, int rows, const PlanLayer* next) const {
    BytePointwise layer;
    layer.inputs = row.inputs;
    layer.entry = levels(row.name, row.inputs);
    layer.reading = reading_of(row);
    const std::vector<int8_t> weights =
        laid_out(row.name, row.outputs, row.inputs, 1, round_up(row.inputs, 4));
    const int quads = (row.inputs + 3) / 4;
    layer.weights =
        PackedBytes(weights.data() + static_cast<size_t>(first) * quads * 4, quads, rows);
    layer.ending = ending(row, first, rows, next);
    return layer;
  }

  ByteConvolution convolution(const PlanLayer& row, const PlanLayer* next) const {
    ByteConvolution layer;
    layer.inputs = row.inputs;
    layer.outputs = row.outputs;
    layer.stride = row.stride;
    layer.entry = levels(row.name, row.inputs);
    layer.ending = ending(row, 0, row.outputs, next);
    const int64_t count = static_cast<int64_t>(row.outputs) * (row.inputs / row.groups) * 9;
    layer.set_weights(tensors_.bytes(row.name + ".weight", count), row.groups);
    return layer;
  }

  ByteStem stem(const PlanLayer& row, int channels) const {
    const int taps = row.kernel * row.kernel;
    ByteStem made;
    made.channels = channels;
    made.room = round_up(channels, 4);
    const float* scale = tensors_.floats(row.name + ".input_scale", channels);
    const float* zero = tensors_.floats(row.name + ".input_shift", channels);
    made.scale.assign(scale, scale + channels);
    made.zero.assign(zero, zero + channels);
    const std::vector<int8_t> weights = laid_out(row.name, row.outputs, channels, taps, made.room);
    made.weights = PackedBytes(weights.data(), taps * made.room / 4, row.outputs);
    made.ending = ending(row, 0, row.outputs, nullptr);
    return made;
  }

  ByteClassifier classifier(const std::string& name, int inputs, int classes) const {
    const std::vector<int8_t> weights = laid_out(name, classes, inputs, 1, round_up(inputs, 4));
    return {PackedBytes(weights.data(), (inputs + 3) / 4, classes),
            held(tensors_.floats(name + ".scale", classes), classes),
            held(tensors_.floats(name + ".bias", classes), classes)};
  }

 private:
  Levels levels(const std::string& name, int inputs) const {
    return {held(tensors_.floats(name + ".input_scale", inputs), inputs),
            held(tensors_.floats(name + ".input_shift", inputs), inputs)};
  }

  // As many numbers as whole vectors and quads read.
  static Floats held(const float* values, int count) {
    Floats made = floats(round_up(count, 64));
    std::copy(values, values + count, made.get());
    return made;
  }

  ByteEnding ending(const PlanLayer& row, int first, int rows, const PlanLayer* next) const {
    ByteEnding made{held(tensors_.floats(row.name + ".scale", row.outputs) + first, rows),
                    held(tensors_.floats(row.name + ".bias", row.outputs) + first, rows)};
    made.levels = next && tensors_.quantised(next->name);
    made.relu = !made.levels && !row.behind.empty();  // levels begin at 0
    if (!made.levels) return made;
    const float* scale = tensors_.floats(next->name + ".input_scale", row.outputs);
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
    return densepath::laid_out(tensors_.bytes(name + ".weight", count), outputs, inputs, taps,
                               room);
  }

  const Tensors& tensors_;
};

}  // namespace densepath
