// INT8 3×3 convolutions, in groups and whole, against plain loops of whole numbers: floats and
// levels as results, rows of every length, both strides, shared out in parts.
#include "../../src/densepath/kernels/int8_layers.hpp"
#include "grouped_shape.hpp"
#include "reference.hpp"

namespace {

using densepath::Barrier;
using densepath::ByteConvolution;
using densepath::ByteMap;
using densepath::floats;
using densepath::LANES;
using densepath::Map;
using densepath::PaddedBytes;
using densepath::Part;
using densepath::round_up;
using reference::Doubles;
using reference::Values;

constexpr float BESIDE = 12345;  // stands where nothing is to be written
constexpr uint8_t BYTE_BESIDE = 77;

struct Case : reference::GroupedShape {
  bool levels;

  std::string name() const { return GroupedShape::name() + (levels ? "levels " : "floats "); }
};

// Its levels and weights, the extremes among them.
struct Subject {
  std::vector<uint8_t> levels;  // [height, width, inputs]
  std::vector<int8_t> weights;  // [outputs, group_width, 9]
  ByteConvolution conv;

  Subject(const Case& of, reference::Random& random)
      : levels(static_cast<size_t>(of.height) * of.width * of.inputs()),
        weights(static_cast<size_t>(of.outputs()) * of.group_width * 9) {
    for (uint8_t& level : levels)
      level = static_cast<uint8_t>(random.among(0, 5) ? random.among(0, 255) : 255);
    for (int8_t& weight : weights)
      weight = static_cast<int8_t>(random.among(0, 5) ? random.among(-128, 127) : -128);
    conv.inputs = of.inputs();
    conv.outputs = of.outputs();
    conv.stride = of.stride;
    conv.ending.levels = of.levels;
    conv.ending.scale = floats(round_up(of.outputs(), 64));
    conv.ending.bias = floats(round_up(of.outputs(), 64));
    for (int o = 0; o < of.outputs(); ++o) {
      conv.ending.scale[o] = of.levels ? random.uniform(1e-4f, 1e-3f) : random.uniform(0.5f, 1.5f);
      conv.ending.bias[o] = random.uniform(-1, 100);
    }
    conv.set_weights(weights.data(), of.groups);
  }

  int64_t sum(const Case& of, int y, int x, int o) const {
    int64_t made = 0;
    for (int tap = 0; tap < 9; ++tap)
      for (int i = 0; i < of.group_width; ++i) {
        const int down = y * of.stride + tap / 3 - 1, across = x * of.stride + tap % 3 - 1;
        if (down < 0 || down >= of.height || across < 0 || across >= of.width) continue;
        const size_t pixel = static_cast<size_t>(down) * of.width + across;
        made += levels[pixel * of.inputs() + o / of.group_outputs * of.group_width + i] *
                weights[(static_cast<size_t>(o) * of.group_width + i) * 9 + tap];
      }
    return made;
  }
};

// run(part) of so many parts, one after another.
template <class Run>
void share_out(int threads, const Run& run) {
  Barrier alone;
  for (int index = 0; index < threads; ++index) run(Part{index, threads, &alone});
}

void check(const Case& of, reference::Random& random, reference::Errors& errors) {
  const Subject subject(of, random);
  const ByteConvolution& conv = subject.conv;
  const size_t size = conv.padded(nullptr, of.height, of.width).size();
  // What is read beyond a group must not count.
  std::vector<uint8_t> memory(size + 64, 255);
  const PaddedBytes padded = conv.padded(memory.data(), of.height, of.width);
  padded.clear_border({0, 1, nullptr});
  for (int p = 0; p < of.height * of.width; ++p)
    conv.place(subject.levels.data() + static_cast<size_t>(p) * of.inputs(),
               padded.at(p / of.width, p % of.width));
  const int column = of.levels ? 0 : random.among(0, 5);
  const long ld = column + of.outputs() + random.among(0, 5);
  const size_t total = static_cast<size_t>(of.high()) * of.wide() * ld;
  Values results(total, BESIDE);
  std::vector<uint8_t> bytes(total, BYTE_BESIDE);
  const Map out{results.data(), of.high(), of.wide(), ld};
  const ByteMap byte_out{bytes.data(), of.high(), of.wide(), ld};
  share_out(of.threads, [&](Part part) {
    if (of.levels)
      conv.run(padded, byte_out, part);
    else
      conv.run(padded, out, column, part);
  });
  Doubles got, wanted;
  bool whole = true;
  for (int p = 0; p < out.pixels(); ++p)
    for (int k = 0; k < ld; ++k) {
      const int o = k - column;
      if (o < 0 || o >= of.outputs()) {
        whole = whole && (of.levels ? byte_out.at(p)[k] == BYTE_BESIDE : out.at(p)[k] == BESIDE);
        continue;
      }
      const double exact = static_cast<double>(subject.sum(of, p / of.wide(), p % of.wide(), o)) *
                               conv.ending.scale[o] +
                           conv.ending.bias[o];
      if (!of.levels) {
        got.push_back(out.at(p)[k]);
        wanted.push_back(exact);
      } else {
        // Halfway between two levels the last digit of a float decides.
        const double level = std::min(std::max(exact, 0.0), 255.0);
        errors.require(of.name() + "level", std::abs(byte_out.at(p)[k] - level) < 0.501);
      }
    }
  errors.require(of.name() + "written beside", whole);
  if (!of.levels) errors.compare(of.name() + "out", got, wanted);
}

Case draw(reference::Random& random) {
  Case of{};
  of.height = random.one_of({1, 2, 3, 5, 8});
  of.width = random.among(1, 32);
  of.groups = random.one_of({1, 2, 3, 5, 8, 17});
  const std::vector<int> widths = of.groups > 3 ? std::vector<int>{1, 2, 3, 4, 5, 6, 8, 11, 12}
                                                : std::vector<int>{1, 3, 4, 13, 16, 24, 32, 40, 50};
  of.group_width = random.one_of(widths);
  of.group_outputs = random.among(0, 4) ? of.group_width : random.one_of(widths);
  of.stride = random.one_of({1, 2});
  of.threads = random.one_of({1, 2, 3, 7});
  of.levels = random.among(0, 1);
  return of;
}

}  // namespace

int main(int count, char** values) {
  const int cases = count > 1 ? std::atoi(values[1]) : 400;
  reference::Errors errors;
  for (int seed = 0; seed < cases; ++seed) {
    reference::Random random(seed);
    check(draw(random), random, errors);
  }
  return errors.report("int8");
}
