#include "arch.hpp"

#include <stdexcept>
#include <string>
#include <utility>

#include "plan_check.hpp"

namespace densepath {
namespace {

constexpr int64_t MOST_STAGES = 16;

void check(const Arch& arch) {
  check_within("stages", static_cast<int64_t>(arch.blocks.size()), MOST_STAGES);
  for (const int layers : arch.blocks) check_within("blocks", layers, MOST);
  check_within("stem_width", arch.stem_width, MOST);
  if (!arch.dual) {
    check_within("growth_rate", arch.growth_rate, MOST);
    if (arch.bottleneck != 0) check_within("bottleneck", arch.bottleneck, MOST / arch.growth_rate);
    if (!(arch.compression > 0 && arch.compression <= 1)) {
      throw std::runtime_error("compression is not in (0, 1]");
    }
    return;
  }
  check_within("stem_kernel", arch.stem_kernel, MOST_KERNEL);
  check_within("k_r", arch.k_r, MOST);
  check_within("groups", arch.groups, arch.k_r);
  check_within("base_factor", arch.base_factor, MOST / 64);
  if (arch.dense_increment.size() != arch.blocks.size()) {
    throw std::runtime_error("dense_increment has another number of stages than blocks");
  }
  for (const int increment : arch.dense_increment) {
    check_within("dense_increment", increment, MOST);
  }
  if (arch.k_r % arch.groups != 0) throw std::runtime_error("its groups are uneven");
}

// The layers so far, and the channels of the state behind them.
struct Growing {
  std::vector<PlanLayer> layers;
  int width = 0;
  int part = -1;

  // A layer of the newest part.
  PlanLayer& add(const std::string& name, int inputs, int outputs) {
    PlanLayer& layer = layers.emplace_back();
    layer.name = name;
    layer.inputs = inputs;
    layer.outputs = outputs;
    layer.part = part;
    return layer;
  }

  // As `add`, of a layer that reads the state through a BatchNorm.
  PlanLayer& add_reader(const std::string& name, const std::string& before, int outputs) {
    PlanLayer& layer = add(name, width, outputs);
    layer.before = before;
    layer.reads = Reads::state;
    return layer;
  }

  // The state has so many channels more. Throws std::runtime_error: more than any network.
  void grow(int channels) {
    width += channels;
    check_within("channels", width, MOST);
  }

  void add_stem(const Arch& arch, const std::string& name, int kernel, const std::string& behind) {
    ++part;
    width = arch.stem_width;
    PlanLayer& layer = add(name, 0, width);
    layer.kernel = arch.small ? 3 : kernel;
    layer.stride = arch.small ? 1 : 2;
    layer.reads = Reads::images;
    layer.writes = Writes::opens;
    layer.behind = behind;
    layer.pool = arch.small ? StemPool::none : arch.stem_pool;
  }

  void add_classifier(const std::string& norm) {
    ++part;
    add_reader("classifier", norm, 0).kind = Kind::classifier;
  }
};

// BN-ReLU-1×1-BN-ReLU-3×3, or without the bottleneck BN-ReLU-3×3.
void add_dense_layer(const Arch& arch, const std::string& name, Growing& made) {
  ++made.part;
  if (arch.bottleneck != 0) {
    const int middle = arch.bottleneck * arch.growth_rate;
    made.add_reader(name + ".conv1", name + ".norm1", middle).behind = name + ".norm2";
    made.add(name + ".conv2", middle, arch.growth_rate);
  } else {
    made.add_reader(name + ".conv1", name + ".norm1", arch.growth_rate);
  }
  made.layers.back().kernel = 3;
  made.layers.back().writes = Writes::appends;
  made.grow(arch.growth_rate);
}

void add_transition(const Arch& arch, const std::string& name, Growing& made) {
  ++made.part;
  const int outputs = static_cast<int>(made.width * arch.compression);
  PlanLayer& layer = made.add_reader(name + ".conv", name + ".norm", outputs);
  layer.writes = Writes::opens;
  layer.averaged = true;
  made.width = outputs;
}

Growing densenet(const Arch& arch) {
  Growing made;
  made.add_stem(arch, "features.conv0", 7, arch.small ? "" : "features.norm0");
  for (size_t stage = 1; stage <= arch.blocks.size(); ++stage) {
    const std::string block = "features.denseblock" + std::to_string(stage) + ".denselayer";
    for (int number = 1; number <= arch.blocks[stage - 1]; ++number) {
      add_dense_layer(arch, block + std::to_string(number), made);
    }
    if (stage < arch.blocks.size()) {
      add_transition(arch, "features.transition" + std::to_string(stage), made);
    }
  }
  made.add_classifier("features.norm5");
  return made;
}

// BN-ReLU-1×1-BN-ReLU-3×3-BN-ReLU-1×1; a stage's first block projects the state, too.
void add_dual_path_block(const Arch& arch, const std::string& name, size_t stage, bool first,
                         Growing& made) {
  ++made.part;
  const int middle = arch.k_r << (stage - 1), base = (64 * arch.base_factor) << (stage - 1);
  check_within("the residual path's width", base, MOST);
  check_within("the 3×3 convolutions' width", middle, MOST);
  const int increment = arch.dense_increment[stage - 1], stride = first && stage > 1 ? 2 : 1;
  const int opened = base + 2 * increment;
  if (first) {
    PlanLayer& projection = made.add_reader(name + ".c1x1_w.conv", name + ".c1x1_w.bn", opened);
    projection.stride = stride;
    projection.writes = Writes::opens;
  }
  made.add_reader(name + ".c1x1_a.conv", name + ".c1x1_a.bn", middle).behind = name + ".c3x3_b.bn";
  PlanLayer& spread = made.add(name + ".c3x3_b.conv", middle, middle);
  spread.kernel = 3;
  spread.stride = stride;
  spread.groups = arch.groups;
  spread.behind = name + ".c1x1_c.bn";
  PlanLayer& last = made.add(name + ".c1x1_c.conv", middle, base + increment);
  last.writes = Writes::adds;
  last.base = base;
  if (first) made.width = opened;
  made.grow(increment);
}

Growing dpn(const Arch& arch) {
  Growing made;
  made.add_stem(arch, "features.conv1_1.conv", arch.stem_kernel, "features.conv1_1.bn");
  for (size_t stage = 1; stage <= arch.blocks.size(); ++stage) {
    const std::string block = "features.conv" + std::to_string(stage + 1) + "_";
    for (int number = 1; number <= arch.blocks[stage - 1]; ++number) {
      add_dual_path_block(arch, block + std::to_string(number), stage, number == 1, made);
    }
  }
  made.add_classifier("features.conv5_bn_ac.bn");
  return made;
}

}  // namespace

Plan plan_of(const Arch& arch) {
  check(arch);
  Plan plan;
  plan.layers = (arch.dual ? dpn(arch) : densenet(arch)).layers;
  plan.bn_eps = arch.bn_eps;
  return plan;
}

}  // namespace densepath
