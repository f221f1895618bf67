// A plan and the tensors of a checkpoint → a network.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "float_build.hpp"
#include "int8_build.hpp"
#include "network.hpp"
#include "plan.hpp"
#include "plan_check.hpp"
#include "tensors.hpp"

namespace densepath {

// Winograd's way costs four times the weights' memory and pays where a map has many tiles.
constexpr int LEAST_WINOGRAD_SIDE = 24;

class Builder {
 public:
  // Plan and tensors must live as long as the builder. `arithmetic` is that of layers of floats.
  Builder(const Plan& plan, const Tensors& tensors, Arithmetic arithmetic = Arithmetic::float32)
      : plan_(plan),
        rows_(plan.layers),
        tensors_(tensors),
        floats_(tensors, plan.bn_eps, arithmetic),
        arithmetic_(arithmetic),
        bytes_(tensors) {}

  // Throws std::runtime_error: a plan that no network has; a tensor that is missing or has another
  // size; bfloat16 of quantised layers, or on a processor that computes it wrongly.
  Network build() {
    check_plan(plan_);
    if (arithmetic_ == Arithmetic::bfloat16) {
      check_bfloat16();
      for (const PlanLayer& row : rows_)
        if (tensors_.quantised(row.name))
          throw std::runtime_error(row.name + " is quantised: its network has no bfloat16");
    }
    Network net{stem(), open(0), {}, {}, 0, {}};
    side_ = std::min(plan_.height, plan_.width) / rows_[0].stride / (net.stem.is_pooled() ? 2 : 1);
    for (size_t i = 1; i + 1 < rows_.size(); ++i) {
      if (rows_[i].kernel == 1)
        add_pointwise(net.layers, i);
      else
        add_convolution(net.layers, i);
    }
    const PlanLayer& last = rows_.back();
    net.num_features = last.inputs;
    net.last = floats_.norm(last.before, last.inputs);
    const int64_t classes = tensors_.count(last.name + ".bias");
    check_within("classes", classes, 1 << 24);
    net.classifier = classifier(last, static_cast<int>(classes));
    return net;
  }

 private:
  Stem stem() const {
    const PlanLayer& row = rows_[0];
    Stem made{plan_.channels, row.kernel, row.stride, row.outputs, row.pool, {}};
    if (tensors_.quantised(row.name))
      made.form = bytes_.stem(row, made.channels);
    else
      made.form = floats_.stem(row, made.channels);
    return made;
  }

  std::variant<FloatClassifier, ByteClassifier> classifier(const PlanLayer& row,
                                                           int classes) const {
    if (tensors_.quantised(row.name)) return bytes_.classifier(row.name, row.inputs, classes);
    return floats_.classifier(row.name, row.inputs, classes);
  }

  // A state begins: the floats between two of its pixels.
  long open(size_t index) {
    width_ = full_ = rows_[index].outputs;
    for (size_t i = index + 1; i < rows_.size() && rows_[i].writes != Writes::opens; ++i)
      full_ += added_by(rows_[i]);
    return round_up(full_, LANES);
  }

  // The layer that reads the outputs, if one does.
  const PlanLayer* next_of(size_t index) const {
    return rows_[index].writes == Writes::nothing ? &rows_[index + 1] : nullptr;
  }

  Layer layer_of(size_t index) {
    const PlanLayer& row = rows_[index];
    Layer layer;
    layer.outputs = row.outputs;
    layer.stride = row.stride;
    layer.averaged = row.averaged;
    layer.begins = row.part != rows_[index - 1].part;
    layer.from_state = row.reads == Reads::state;
    layer.to = row.writes == Writes::opens     ? Destination::opened
               : row.writes == Writes::nothing ? handed(row, rows_[index + 1])
                                               : Destination::state;
    return layer;
  }

  // How a layer's outputs get to the next one.
  Destination handed(const PlanLayer& row, const PlanLayer& next) const {
    const bool from_bytes = tensors_.quantised(row.name), to_bytes = tensors_.quantised(next.name);
    if (arithmetic_ == Arithmetic::bfloat16 && next.kernel == 1 && next.before.empty() &&
        row.groups > 1)
      return Destination::halves;
    if (next.kernel == 3 && (from_bytes || !to_bytes)) return Destination::padded;
    return from_bytes && to_bytes ? Destination::levels : Destination::between;
  }

  void add_pointwise(std::vector<Layer>& layers, size_t index) {
    const PlanLayer& row = rows_[index];
    if (row.writes == Writes::adds) return add_both(layers, index);
    Layer layer = layer_of(index);
    layer.form = pointwise(index, 0, row.outputs);
    if (row.writes == Writes::opens) {
      layer.ld = open(index);
      side_ = layer.side(side_);
      layer.meets = rows_[index + 1].part != row.part;  // else that reads the state before it
    }
    layers.push_back(std::move(layer));
  }

  // The layer in two: what is added to the state, and what is appended to it.
  void add_both(std::vector<Layer>& layers, size_t index) {
    const PlanLayer& row = rows_[index];
    Layer adds = layer_of(index), appends = layer_of(index);
    adds.form = pointwise(index, 0, row.base);
    adds.add = true;
    adds.meets = false;
    appends.form = pointwise(index, row.base, row.outputs - row.base);
    appends.column = width_;
    appends.begins = false;
    width_ += added_by(row);
    layers.push_back(std::move(adds));
    layers.push_back(std::move(appends));
  }

  void add_convolution(std::vector<Layer>& layers, size_t index) {
    const PlanLayer& row = rows_[index];
    Layer layer = layer_of(index);
    // A state's layers go one way, all of them.
    const bool winograd = row.writes == Writes::appends && row.stride == 1 && row.groups == 1 &&
                          side_ >= LEAST_WINOGRAD_SIDE &&
                          (layer.from_state ? full_ : row.inputs) <= KC;
    if (tensors_.quantised(row.name))
      layer.form = bytes_.convolution(row, next_of(index));
    else
      layer.form = floats_.convolution(row, winograd);
    if (row.writes == Writes::appends) {
      layer.column = width_;
      width_ += added_by(row);
    }
    layers.push_back(std::move(layer));
  }

  decltype(Layer::form) pointwise(size_t index, int first, int rows) const {
    const PlanLayer& row = rows_[index];
    if (tensors_.quantised(row.name)) return bytes_.pointwise(row, first, rows, next_of(index));
    return floats_.pointwise(row, first, rows);
  }

  const Plan& plan_;
  const std::vector<PlanLayer>& rows_;
  const Tensors& tensors_;
  const FloatBuilder floats_;
  const Arithmetic arithmetic_;
  const ByteBuilder bytes_;
  int width_ = 0, full_ = 0;  // channels of the state: so far, and in the end
  int side_ = 0;              // of the state, where images are as large as planned
};

}  // namespace densepath
