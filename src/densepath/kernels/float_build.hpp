// Tensors of a checkpoint → the layers in float32.
//
// BatchNorm behind a convolution goes into its weights, in double; in front of one it becomes a
// factor and a summand a channel.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "layers.hpp"
#include "plan.hpp"
#include "stem.hpp"
#include "tensors.hpp"

namespace densepath {

class FloatBuilder {
 public:
  // The tensors must live as long as the builder.
  FloatBuilder(const Tensors& tensors, double bn_eps, Arithmetic arithmetic)
      : tensors_(tensors), bn_eps_(bn_eps), arithmetic_(arithmetic) {}

  Norm norm(const std::string& name, int channels) const {
    const Affine made = affine(name, channels);
    return {vector(made.scale.data(), channels), vector(made.shift.data(), channels)};
  }

  // Outputs from `first` on, `rows` of them.
  Pointwise pointwise(const PlanLayer& row, int first, int rows) const {
    Pointwise layer;
    if (!row.before.empty()) layer.norm = norm(row.before, row.inputs);
    Folded folded = fold(row, row.inputs, 1, first, rows);
    if (arithmetic_ == Arithmetic::bfloat16)
      layer.pairs = PackedPairs(folded.weights.data(), row.inputs, rows);
    else
      layer.weights = Packed(folded.weights.data(), row.inputs, rows);
    layer.outputs = rows;
    layer.bias = std::move(folded.bias);
    layer.relu = !row.behind.empty();
    layer.reading = reading_of(row);
    return layer;
  }

  Convolution convolution(const PlanLayer& row, bool winograd) const {
    Convolution layer;
    layer.inputs = row.inputs;
    layer.outputs = row.outputs;
    layer.stride = row.stride;
    if (!row.before.empty()) layer.norm = norm(row.before, row.inputs);
    Folded folded = fold(row, row.inputs / row.groups, 9, 0, row.outputs);
    layer.set_weights(folded.weights.data(), row.groups, winograd, arithmetic_);
    layer.bias = std::move(folded.bias);
    layer.relu = !row.behind.empty();
    return layer;
  }

  FloatStem stem(const PlanLayer& row, int channels) const {
    const int taps = row.kernel * row.kernel;
    Folded folded = fold(row, channels, taps, 0, row.outputs);
    FloatStem layer;
    layer.weights = Packed(folded.weights.data(), taps * channels, row.outputs);
    layer.bias = folded.bias ? std::move(folded.bias) : floats(round_up(row.outputs, PANEL));
    layer.relu = !row.behind.empty();
    return layer;
  }

  FloatClassifier classifier(const std::string& name, int inputs, int classes) const {
    const float* weight = tensors_.floats(name + ".weight", static_cast<int64_t>(classes) * inputs);
    return {Packed(turned(weight, inputs, 1, 0, classes).data(), inputs, classes),
            vector(tensors_.floats(name + ".bias", classes), classes)};
  }

 private:
  struct Affine {
    std::vector<double> scale, shift;
  };

  template <class T>
  static Floats vector(const T* values, int count) {
    Floats held = floats(round_up(count, PANEL));
    for (int i = 0; i < count; ++i) held[i] = static_cast<float>(values[i]);
    return held;
  }

  Affine affine(const std::string& name, int channels) const {
    const float* weight = tensors_.floats(name + ".weight", channels);
    const float* bias = tensors_.floats(name + ".bias", channels);
    const float* mean = tensors_.floats(name + ".running_mean", channels);
    const float* variance = tensors_.floats(name + ".running_var", channels);
    Affine made;
    for (int c = 0; c < channels; ++c) {
      const double scale = weight[c] / std::sqrt(variance[c] + bn_eps_);
      made.scale.push_back(scale);
      made.shift.push_back(bias[c] - mean[c] * scale);
    }
    return made;
  }

  // [outputs, inputs, taps] → [taps, inputs, rows] of the outputs from `first` on, each times its
  // `scale` if there is one.
  static std::vector<float> turned(const float* from, int inputs, int taps, int first, int rows,
                                   const double* scale = nullptr) {
    const size_t each = static_cast<size_t>(inputs) * taps;
    std::vector<float> to(each * rows);
    constexpr int TOGETHER = 16;
    for (int start = 0; start < rows; start += TOGETHER) {
      const int end = std::min(start + TOGETHER, rows);
      for (int i = 0; i < inputs; ++i)
        for (int t = 0; t < taps; ++t)
          for (int o = start; o < end; ++o) {
            const float value = from[(first + o) * each + static_cast<size_t>(i) * taps + t];
            to[(static_cast<size_t>(t) * inputs + i) * rows + o] =
                scale ? static_cast<float>(value * scale[o]) : value;
          }
    }
    return to;
  }

  // Weights of a convolution, with the BatchNorm behind it; without one, no bias.
  struct Folded {
    std::vector<float> weights;
    Floats bias;
  };

  // Outputs from `first` on, each of `inputs` · `taps` weights.
  Folded fold(const PlanLayer& row, int inputs, int taps, int first, int rows) const {
    const float* weight =
        tensors_.floats(row.name + ".weight", static_cast<int64_t>(row.outputs) * inputs * taps);
    if (row.behind.empty()) return {turned(weight, inputs, taps, first, rows), nullptr};
    const Affine made = affine(row.behind, row.outputs);
    return {turned(weight, inputs, taps, first, rows, made.scale.data() + first),
            vector(made.shift.data() + first, rows)};
  }

  const Tensors& tensors_;
  const double bn_eps_;
  const Arithmetic arithmetic_;
};

}  // namespace densepath
