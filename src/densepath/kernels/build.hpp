// Tensors of a checkpoint → a network.
//
// BatchNorm behind a convolution goes into its weights, in double; in front of one it becomes a
// factor and a summand a channel.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "arch.hpp"
#include "int8_build.hpp"
#include "network.hpp"

namespace densepath {

// Winograd's way costs four times the weights' memory and pays where a map has many tiles.
constexpr int LEAST_WINOGRAD_SIDE = 24;
constexpr int MOST = 1 << 16;  // channels, layers: above any network of the two families
constexpr size_t MOST_STAGES = 16;

class Builder {
 public:
  // Both must live as long as the builder.
  Builder(const Arch& arch, const Tensors& tensors) : arch_(arch), tensors_(tensors), bytes_(tensors) {}

  // Throws std::runtime_error: a number that no network has; a tensor that is missing or has
  // another size.
  Network build() {
    check();
    Network net;
    int width = add_stem(net);
    int side = std::min(arch_.height, arch_.width) / (imagenet() ? 4 : 1);
    for (size_t i = 0; i < arch_.blocks.size(); ++i, side /= 2)
      net.stages.push_back(arch_.dual ? dual_stage(i, width) : dense_stage(i, width, side));
    net.num_features = width;
    net.last = norm(arch_.dual ? "features.conv5_bn_ac.bn" : "features.norm5", width);
    const int64_t classes = tensor("classifier.bias").count;
    within("classes", classes, 1 << 24);
    const int outputs = static_cast<int>(classes);
    if (bytes_.has("classifier")) {
      net.byte_classifier = bytes_.classifier(width, outputs);
      return net;
    }
    const float* weight = tensor("classifier.weight", classes * width);
    net.classifier = Packed(turned(weight, width, 1, 0, outputs).data(), width, outputs);
    net.classifier_bias = vector(tensor("classifier.bias", classes), outputs);
    return net;
  }

 private:
  struct Affine {
    std::vector<double> scale, shift;
  };

  bool imagenet() const { return arch_.stem_pool != StemPool::none; }

  static void within(const char* what, int64_t value, int64_t high, int64_t low = 1) {
    if (value < low || value > high)
      throw std::runtime_error(std::string(what) + " is " + std::to_string(value) +
                               ", which no network has");
  }

  void check() const {
    within("stages", static_cast<int64_t>(arch_.blocks.size()), MOST_STAGES);
    for (const int layers : arch_.blocks) within("blocks", layers, MOST);
    within("in_channels", arch_.channels, MOST);
    within("stem_width", arch_.stem_width, MOST);
    if (!(arch_.bn_eps > 0)) throw std::runtime_error("bn_eps is not above 0");
    if (!arch_.dual) {
      within("growth_rate", arch_.growth_rate, MOST);
      within("bottleneck", arch_.bottleneck, MOST / arch_.growth_rate, 0);
      return;
    }
    within("k_r", arch_.k_r, MOST);
    within("groups", arch_.groups, arch_.k_r);
    within("base_factor", arch_.base_factor, MOST / 64);
    within("increments", static_cast<int64_t>(arch_.dense_increment.size()),
           static_cast<int64_t>(arch_.blocks.size()), static_cast<int64_t>(arch_.blocks.size()));
    for (const int increment : arch_.dense_increment) within("dense_increment", increment, MOST);
    if (arch_.k_r % arch_.groups) throw std::runtime_error("its groups are uneven");
  }

  const Tensor& tensor(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw std::runtime_error("it has no tensor " + name);
    return found->second;
  }

  const float* tensor(const std::string& name, int64_t count) const {
    const Tensor& found = tensor(name);
    if (found.count != count)
      throw std::runtime_error(name + " has " + std::to_string(found.count) +
                               " numbers, and the network needs " + std::to_string(count));
    if (!found.data) throw std::runtime_error(name + " is bytes, and the network needs floats");
    return found.data;
  }

  // The outputs of a 1×1 convolution or of another whose `taps` are known.
  int outputs(const std::string& name, int inputs, int taps = 1) const {
    const int64_t count = tensor(name + ".weight").count, each = static_cast<int64_t>(inputs) * taps;
    within(name.c_str(), count % each ? 0 : count / each, MOST);
    return static_cast<int>(count / each);
  }

  template <class T>
  static Floats vector(const T* values, int count) {
    Floats held = floats(round_up(count, PANEL));
    for (int i = 0; i < count; ++i) held[i] = static_cast<float>(values[i]);
    return held;
  }

  Affine affine(const std::string& name, int channels) const {
    const float* weight = tensor(name + ".weight", channels);
    const float* bias = tensor(name + ".bias", channels);
    const float* mean = tensor(name + ".running_mean", channels);
    const float* variance = tensor(name + ".running_var", channels);
    Affine made;
    for (int c = 0; c < channels; ++c) {
      const double scale = weight[c] / std::sqrt(variance[c] + arch_.bn_eps);
      made.scale.push_back(scale);
      made.shift.push_back(bias[c] - mean[c] * scale);
    }
    return made;
  }

  Norm norm(const std::string& name, int channels) const {
    const Affine made = affine(name, channels);
    return {vector(made.scale.data(), channels), vector(made.shift.data(), channels)};
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

  // Weights of a convolution; `behind` is the BatchNorm that goes into them, or nothing.
  struct Folded {
    std::vector<float> weights;
    Floats bias;
  };

  Folded fold(const std::string& conv, const std::string& behind, int inputs, int taps,
              int all) const {
    const float* weight = tensor(conv + ".weight", static_cast<int64_t>(all) * inputs * taps);
    if (behind.empty()) return {turned(weight, inputs, taps, 0, all), nullptr};
    const Affine made = affine(behind, all);
    return {turned(weight, inputs, taps, 0, all, made.scale.data()),
            vector(made.shift.data(), all)};
  }

  // BN-ReLU-1×1; with the BatchNorm and ReLU behind it if one is named.
  Pointwise pointwise(const std::string& before, const std::string& conv,
                      const std::string& behind, int inputs, int all) const {
    Pointwise layer;
    if (!before.empty()) layer.norm = norm(before, inputs);
    Folded folded = fold(conv, behind, inputs, 1, all);
    layer.weights = Packed(folded.weights.data(), inputs, all);
    layer.bias = std::move(folded.bias);
    layer.relu = !behind.empty();
    return layer;
  }

  // Outputs from `first` on of a 1×1 convolution that has nothing before or behind it.
  Pointwise part(const std::string& conv, int inputs, int all, int first, int rows) const {
    Pointwise layer;
    const float* weight = tensor(conv + ".weight", static_cast<int64_t>(all) * inputs);
    layer.weights = Packed(turned(weight, inputs, 1, first, rows).data(), inputs, rows);
    return layer;
  }

  Convolution convolution(const std::string& conv, const std::string& behind, int inputs, int all,
                          int groups, int stride, bool winograd) const {
    Convolution layer;
    layer.inputs = inputs;
    layer.outputs = all;
    layer.stride = stride;
    Folded folded = fold(conv, behind, inputs / groups, 9, all);
    layer.set_weights(folded.weights.data(), groups, winograd);
    layer.bias = std::move(folded.bias);
    layer.relu = !behind.empty();
    return layer;
  }

  // A convolution, the BatchNorms before and behind it, and the convolution that reads it.
  struct Names {
    std::string before, conv, behind, next;
  };

  // A 1×1 convolution in one of its two forms.
  void squeeze(Pointwise& floats, BytePointwise& bytes, const Names& names, int inputs,
               int all) const {
    if (bytes_.has(names.conv))
      bytes = bytes_.pointwise(names.conv, inputs, all, 0, all, names.next);
    else
      floats = pointwise(names.before, names.conv, names.behind, inputs, all);
  }

  // A 3×3 convolution in one of its two forms.
  void spread(Convolution& floats, ByteConvolution& bytes, const Names& names, int inputs, int all,
              int groups, int stride, bool winograd) const {
    if (bytes_.has(names.conv)) {
      bytes = bytes_.convolution(names.conv, inputs, all, groups, stride, names.next);
      floats.inputs = inputs;  // the sizes of the maps are those of the float form
      floats.outputs = all;
      floats.stride = stride;
    } else {
      floats = convolution(names.conv, names.behind, inputs, all, groups, stride, winograd);
    }
  }

  // The channels that it makes.
  int add_stem(Network& net) const {
    const std::string conv = arch_.dual ? "features.conv1_1.conv" : "features.conv0";
    const std::string behind = arch_.dual  ? "features.conv1_1.bn"
                               : imagenet() ? "features.norm0"
                                            : "";
    Stem& stem = net.stem;
    stem.channels = arch_.channels;
    stem.outputs = arch_.stem_width;
    stem.stride = imagenet() ? 2 : 1;
    stem.pool = arch_.stem_pool;
    stem.relu = !behind.empty();
    const int64_t taps = outputs(conv, arch_.stem_width * arch_.channels);
    stem.kernel = static_cast<int>(std::lround(std::sqrt(static_cast<double>(taps))));
    if (stem.kernel > 15 || static_cast<int64_t>(stem.kernel) * stem.kernel != taps)
      throw std::runtime_error(conv + " is not square");
    if (bytes_.has(conv)) {
      stem.bytes = bytes_.stem(conv, stem.channels, static_cast<int>(taps), stem.outputs, stem.relu);
      return stem.outputs;
    }
    Folded folded =
        fold(conv, behind, stem.channels, static_cast<int>(taps), arch_.stem_width);
    const int rows = static_cast<int>(taps) * stem.channels;
    stem.weights = Packed(folded.weights.data(), rows, stem.outputs);
    stem.bias = folded.bias ? std::move(folded.bias) : floats(round_up(stem.outputs, PANEL));
    return stem.outputs;
  }

  // A dense block and the transition behind it: `width` channels enter.
  Stage dense_stage(size_t index, int& width, int side) const {
    const std::string block = "features.denseblock" + std::to_string(index + 1) + ".denselayer";
    const int layers = arch_.blocks[index], growth = arch_.growth_rate;
    const int middle = arch_.bottleneck * growth;
    const bool winograd =
        side >= LEAST_WINOGRAD_SIDE && (middle ? middle : width + layers * growth) <= KC;
    Stage stage;
    for (int i = 0; i < layers; ++i, width += growth) {
      const std::string name = block + std::to_string(i + 1);
      DenseLayer layer;
      layer.column = width;
      const std::string last = name + (middle ? ".conv2" : ".conv1");
      if (middle)
        squeeze(layer.squeeze, layer.byte_squeeze,
                {name + ".norm1", name + ".conv1", name + ".norm2", last}, width, middle);
      else if (!bytes_.has(last))
        layer.norm = norm(name + ".norm1", width);
      spread(layer.conv, layer.byte_conv, {"", last, "", ""}, middle ? middle : width, growth, 1, 1,
             winograd);
      stage.layers.push_back(std::move(layer));
    }
    stage.ld = round_up(width, LANES);
    if (index + 1 < arch_.blocks.size()) {
      const std::string name = "features.transition" + std::to_string(index + 1);
      const int next = outputs(name + ".conv", width);
      squeeze(stage.transition, stage.byte_transition, {name + ".norm", name + ".conv", "", ""},
              width, next);
      stage.transition.reading = stage.byte_transition.reading = Reading::averages;
      width = next;
    }
    return stage;
  }

  // A stage of a DPN: `width` channels enter.
  Stage dual_stage(size_t index, int& width) const {
    const int base = 64 * arch_.base_factor << index, increment = arch_.dense_increment[index];
    const int middle = arch_.k_r << index;
    within("the residual path's width", base, MOST);
    within("the 3×3 convolutions' width", middle, MOST);
    Stage stage;
    for (int i = 0; i < arch_.blocks[index]; ++i) {
      const std::string name =
          "features.conv" + std::to_string(index + 2) + "_" + std::to_string(i + 1);
      DualPathBlock block;
      block.first = i == 0;
      block.base = base;
      const int in = width, stride = block.first && index ? 2 : 1;
      if (block.first) {
        width = base + 2 * increment;
        squeeze(block.project, block.byte_project,
                {name + ".c1x1_w.bn", name + ".c1x1_w.conv", "", ""}, in, width);
        if (stride == 2)
          block.project.reading = block.byte_project.reading = Reading::every_second;
      }
      block.column = width;
      const std::string last = name + ".c1x1_c.conv";
      squeeze(block.a, block.byte_a,
              {name + ".c1x1_a.bn", name + ".c1x1_a.conv", name + ".c3x3_b.bn",
               name + ".c3x3_b.conv"},
              in, middle);
      spread(block.b, block.byte_b, {"", name + ".c3x3_b.conv", name + ".c1x1_c.bn", last}, middle,
             middle, arch_.groups, stride, false);
      if (bytes_.has(last)) {
        const int all = base + increment;
        block.byte_to_residual = bytes_.pointwise(last, middle, all, 0, base, "");
        block.byte_to_dense = bytes_.pointwise(last, middle, all, base, increment, "");
      } else {
        block.to_residual = part(last, middle, base + increment, 0, base);
        block.to_dense = part(last, middle, base + increment, base, increment);
      }
      width += increment;
      stage.blocks.push_back(std::move(block));
    }
    stage.ld = round_up(width, LANES);
    return stage;
  }

  const Arch& arch_;
  const Tensors& tensors_;
  const ByteBuilder bytes_;
};

}  // namespace densepath
