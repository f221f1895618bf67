// The tensors of a checkpoint by their names. No vectors here: any program may include this.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <unordered_map>

namespace densepath {

// Floats, or the bytes of quantised weights.
struct Tensor {
  const float* data;
  int64_t count;
  const int8_t* bytes = nullptr;
};

// By the names of `build_model`'s network. All that look one up throw std::runtime_error: it is
// missing, has another size or is of the other kind.
class Tensors {
 public:
  Tensor& operator[](const std::string& name) { return held_[name]; }

  // Whether the layer is INT8.
  bool quantised(const std::string& layer) const {
    const auto found = held_.find(layer + ".weight");
    return found != held_.end() && found->second.bytes;
  }

  int64_t count(const std::string& name) const { return at(name).count; }

  const float* floats(const std::string& name, int64_t count) const {
    const float* data = sized(name, count).data;
    if (!data) throw std::runtime_error(name + " is bytes, and the network needs floats");
    return data;
  }

  const int8_t* bytes(const std::string& name, int64_t count) const {
    return sized(name, count).bytes;
  }

 private:
  const Tensor& at(const std::string& name) const {
    const auto found = held_.find(name);
    if (found == held_.end()) throw std::runtime_error("it has no tensor " + name);
    return found->second;
  }

  const Tensor& sized(const std::string& name, int64_t count) const {
    const Tensor& found = at(name);
    if (found.count != count)
      throw std::runtime_error(name + " has " + std::to_string(found.count) +
                               " numbers, and the network needs " + std::to_string(count));
    return found;
  }

  std::unordered_map<std::string, Tensor> held_;
};

}  // namespace densepath
