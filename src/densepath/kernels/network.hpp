// A DenseNet or DPN as a list of layers, each in float32 or in INT8.
#pragma once

#include <variant>
#include <vector>

#include "int8_layers.hpp"
#include "int8_stem.hpp"
#include "layers.hpp"
#include "plan.hpp"
#include "stem.hpp"

namespace densepath {

// Where a layer's outputs go.
enum class Destination {
  opened,   // a new state
  state,    // columns of the state
  padded,   // what the next layer, a 3×3, reads
  between,  // a map of floats for the next layer
  halves,   // a map of bfloat16 for the next layer
  levels,   // a map of bytes for the next layer
};

// A convolution. Of one that adds to the state and appends to it there are two.
struct Layer {
  std::variant<Pointwise, BytePointwise, Convolution, ByteConvolution> form;
  int outputs = 0, stride = 1;
  bool averaged = false;
  bool begins = false;     // a part: the state that its layers read is the one that it found
  bool from_state = true;  // reads that; else what the layer before it made for it
  Destination to = Destination::between;
  int column = 0;  // of the state
  bool add = false;
  long ld = 0;        // of the state that it opens: its channels in the end, rounded up
  bool meets = true;  // the layer behind it touches what this one has written

  // Of its outputs.
  int side(int n) const { return averaged ? n / 2 : (n - 1) / stride + 1; }
};

struct Network {
  Stem stem;
  long stem_ld;  // as `Layer::ld`
  std::vector<Layer> layers;
  Norm last;
  int num_features = 0;
  std::variant<FloatClassifier, ByteClassifier> classifier;

  int classes() const {
    return std::visit([](const auto& form) { return form.classes(); }, classifier);
  }

  // features [count, num_features] → logits [count, classes]
  void classify(const float* features, int count, float* logits, Scratch& own) const {
    std::visit([&](const auto& form) { form.run(features, count, num_features, logits, own); },
               classifier);
  }
};

}  // namespace densepath
