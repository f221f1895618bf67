#include "checkpoint.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "bytes.hpp"
#include "text.hpp"

namespace densepath {
namespace {

using Json = nlohmann::json;

constexpr size_t LENGTH_BYTES = 8;
constexpr char SKIPPED[] = "num_batches_tracked";
// The formats of weights/checkpoint_file.py: of a checkpoint, and of INT8 weights.
constexpr int FORMAT = 1;
constexpr char INT8_FORMAT[] = "int8-1";

int whole(const Json& numbers, const char* name) { return numbers.at(name).get<int>(); }

// `ModelSpec.to_dict` (models/spec.py).
Arch read_arch(const Json& spec) {
  const Json& numbers = spec.at("arch");
  Arch arch;
  arch.dual = spec.at("family") == "dpn";
  arch.small = numbers.at("stem") != "imagenet";
  arch.stem_pool = numbers.at("stem_pool") == "same" ? StemPool::same : StemPool::pad1;
  arch.stem_width = whole(numbers, "stem_width");
  arch.bn_eps = numbers.at("bn_eps").get<double>();
  arch.blocks = numbers.at("blocks").get<std::vector<int>>();
  if (arch.dual) {
    arch.stem_kernel = whole(numbers, "stem_kernel");
    arch.k_r = whole(numbers, "k_r");
    arch.groups = whole(numbers, "groups");
    arch.base_factor = whole(numbers, "base_factor");
    arch.dense_increment = numbers.at("dense_increment").get<std::vector<int>>();
  } else {
    arch.growth_rate = whole(numbers, "growth_rate");
    arch.bottleneck = whole(numbers, "bottleneck");
    arch.compression = numbers.at("compression").get<double>();
  }
  return arch;
}

// Throws BundleError unless the description is of a format that is read here.
void check_format(const Json& description, const std::string& name) {
  const Json& written = description.at("format");
  if ((written.is_number_integer() && written == FORMAT) || written == INT8_FORMAT) return;
  throw BundleError(name + " is of checkpoint format " + printable(written.dump()) +
                    "; this densepath reads formats " + std::to_string(FORMAT) + " and \"" +
                    INT8_FORMAT + "\". Export it again, or use the densepath that wrote it.");
}

// Floats that a program may read where they stand.
const float* floats_at(const uint8_t* bytes, size_t count, Checkpoint& made) {
  if (reinterpret_cast<uintptr_t>(bytes) % alignof(float) == 0) {
    return reinterpret_cast<const float*>(bytes);
  }
  made.aligned.push_back(std::make_unique<float[]>(count));
  std::memcpy(made.aligned.back().get(), bytes, count * sizeof(float));
  return made.aligned.back().get();
}

void add_tensor(const std::string& name, const Json& tensor, Bytes data, Checkpoint& made) {
  const std::string type = tensor.at("dtype").get<std::string>();
  const bool quantised = type == "I8";
  if (type != "F32" && !quantised) {
    throw std::runtime_error(name + " is of type " + type + ", and only F32 and I8 are read");
  }
  const auto place = tensor.at("data_offsets").get<std::vector<uint64_t>>();
  const bool inside = place.size() == 2 && place[0] <= place[1] && place[1] <= data.size();
  const size_t item_size = quantised ? sizeof(int8_t) : sizeof(float);
  if (!inside || (place[1] - place[0]) % item_size != 0) {
    throw std::runtime_error(name + " lies outside the file");
  }
  const size_t count = static_cast<size_t>(place[1] - place[0]) / item_size;
  const uint8_t* start = data.data() + place[0];
  Tensor& read = made.tensors[name] = {nullptr, static_cast<int64_t>(count)};
  if (quantised) {
    read.bytes = reinterpret_cast<const int8_t*>(start);
  } else {
    read.data = floats_at(start, count, made);
  }
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

Checkpoint read_checkpoint(const Contents& file, const std::string& name) {
  try {
    const Bytes bytes(file);
    const auto length = bytes.number(0, LENGTH_BYTES, false);
    if (!length || *length > bytes.size() - LENGTH_BYTES) {
      throw std::runtime_error("its header is cut off");
    }
    const Bytes text = bytes.part(LENGTH_BYTES, static_cast<size_t>(*length));
    const Json header = Json::parse(text.begin(), text.end());
    const std::string said = header.at("__metadata__").at("densepath").get<std::string>();
    const Json description = Json::parse(said);
    check_format(description, name);
    Checkpoint made;
    made.arch = read_arch(description.at("spec"));
    made.channels = description.at("in_channels").get<int>();
    const Bytes data = bytes.part(LENGTH_BYTES + static_cast<size_t>(*length));
    for (const auto& [key, tensor] : header.items()) {
      if (key != "__metadata__" && !ends_with(key, SKIPPED)) add_tensor(key, tensor, data, made);
    }
    return made;
  } catch (const BundleError&) {
    throw;
  } catch (const std::exception& error) {
    throw BundleError(name + " is not a whole checkpoint: " + printable(error.what()) + ".");
  }
}

}  // namespace densepath
