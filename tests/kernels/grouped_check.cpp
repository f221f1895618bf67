// Grouped 3×3 convolutions, in float32 and in bfloat16 against plain loops in double, the latter
// over the same rounded numbers: every kind of group, rows of every length, both strides, shared
// out among threads.
#include "../../src/densepath/kernels/convolution3x3.hpp"
#include "grouped_shape.hpp"
#include "reference.hpp"

namespace {

using densepath::Arithmetic;
using densepath::Barrier;
using densepath::BFloat16;
using densepath::Convolution;
using densepath::floats;
using densepath::Floats;
using densepath::HalfMap;
using densepath::LANES;
using densepath::Map;
using densepath::Padded;
using densepath::Part;
using densepath::Scratch;
using reference::Doubles;
using reference::Values;

constexpr float BESIDE = 12345;  // stands where nothing is to be written

// To 8 bits of a normal number; of two equally near the even one.
double to_eight_bits(double x) {
  int exponent;
  const double part = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(part * 256), exponent - 8);
}

struct Case : reference::GroupedShape {
  bool bias, relu, halved;

  double rounded(double x) const { return halved ? to_eight_bits(x) : x; }
  std::string name() const {
    return GroupedShape::name() + (bias ? "bias " : "") + (relu ? "relu " : "") +
           (halved ? "bfloat16 " : "");
  }
};

Convolution convolution(const Case& of, const Values& taps, reference::Random& random) {
  Convolution made;
  made.inputs = of.inputs();
  made.outputs = of.outputs();
  made.stride = of.stride;
  made.relu = of.relu;
  made.norm = {floats(of.inputs()), floats(of.inputs())};
  for (int c = 0; c < of.inputs(); ++c) {  // of which nothing is rounded
    made.norm.scale[c] = static_cast<float>(random.one_of({-2, -1, 1, 2})) / 2;
    made.norm.shift[c] = random.uniform(-1, 1);
  }
  made.set_weights(taps.data(), of.groups, false,
                   of.halved ? Arithmetic::bfloat16 : Arithmetic::float32);
  if (of.bias) {
    made.bias = floats(densepath::round_up(of.outputs(), densepath::PANEL));
    for (int c = 0; c < of.outputs(); ++c) made.bias[c] = random.uniform(-1, 1);
  }
  return made;
}

// `taps` [3, 3, group_width, outputs], x [height, width, inputs] before BatchNorm and ReLU.
Doubles plain(const Case& of, const Convolution& conv, const Values& taps, const Map& x) {
  Doubles made;
  for (int y = 0; y < of.high(); ++y)
    for (int column = 0; column < of.wide(); ++column)
      for (int o = 0; o < of.outputs(); ++o) {
        double sum = of.bias ? conv.bias[o] : 0;
        for (int tap = 0; tap < 9; ++tap)
          for (int i = 0; i < of.group_width; ++i) {
            const int down = y * of.stride + tap / 3 - 1, across = column * of.stride + tap % 3 - 1;
            if (down < 0 || down >= of.height || across < 0 || across >= of.width) continue;
            const int c = o / of.group_outputs * of.group_width + i;
            const double normalised =
                x.at(down * of.width + across)[c] * conv.norm.scale[c] + conv.norm.shift[c];
            sum += of.rounded(std::max(normalised, 0.0)) *
                   of.rounded(
                       taps[(static_cast<size_t>(tap) * of.group_width + i) * of.outputs() + o]);
          }
        made.push_back(of.relu ? std::max(sum, 0.0) : sum);
      }
  return made;
}

// What `conv` makes of x [height, width, inputs], by so many threads → columns of `out`, and
// rounded → `halves`, if there are any.
void run(const Convolution& conv, const Map& x, const Map& out, int column, const HalfMap& halves,
         int threads) {
  const size_t size = conv.padded(nullptr, x.height, x.width).size();
  const Floats memory = floats(size);
  // What a lane reads and does not need must not count.
  std::fill(memory.get(), memory.get() + size, NAN);
  const Padded padded = conv.padded(memory.get(), x.height, x.width);
  Barrier alone;
  Scratch own;
  padded.clear_border({0, 1, &alone});
  for (int index = 0; index < threads; ++index)
    conv.enter(x, padded, {index, threads, &alone}, own);
  for (int index = 0; index < threads; ++index) {
    conv.run(padded, out, column, {index, threads, &alone}, own);
    if (halves.data) conv.run(padded, halves, {index, threads, &alone});
  }
}

void check(const Case& of, reference::Random& random, reference::Errors& errors) {
  const size_t pixels = static_cast<size_t>(of.height) * of.width;
  const Values taps = random.values(static_cast<size_t>(9) * of.group_width * of.outputs(), -1, 1);
  const Convolution conv = convolution(of, taps, random);
  const long in_ld = of.inputs() + random.among(0, 5);
  Values values = random.values(pixels * in_ld + LANES, -1, 1);
  const Map x{values.data(), of.height, of.width, in_ld};
  const int column = random.among(0, 5);
  const long ld = column + of.outputs() + random.among(0, 5);
  Values results(static_cast<size_t>(of.high()) * of.wide() * ld, BESIDE);
  const Map out{results.data(), of.high(), of.wide(), ld};
  const long half_ld = of.outputs() + random.among(0, 5);
  std::vector<BFloat16> half_results(static_cast<size_t>(out.pixels()) * half_ld, {0xabcd});
  const HalfMap halves{of.halved ? half_results.data() : nullptr, of.high(), of.wide(), half_ld};
  run(conv, x, out, column, halves, of.threads);
  Doubles got;
  bool whole = true;
  for (int p = 0; p < out.pixels(); ++p)
    for (int c = 0; c < ld; ++c) {
      const bool wanted = c >= column && c < column + of.outputs();
      if (wanted) got.push_back(out.at(p)[c]);
      whole = whole && (wanted || out.at(p)[c] == BESIDE);
    }
  errors.compare(of.name() + "out", got, plain(of, conv, taps, x));
  errors.require(of.name() + "written beside", whole);
  if (!of.halved) return;
  bool same = true;
  for (int p = 0; p < out.pixels(); ++p)
    for (int c = 0; c < half_ld; ++c) {
      BFloat16 wanted[LANES] = {{0xabcd}};
      if (c < of.outputs()) store(wanted, densepath::splat(out.at(p)[column + c]));
      same = same && halves.at(p)[c].bits == wanted[0].bits;
    }
  errors.require(of.name() + "rounded", same);
}

// What is not a number in the first input of a group stays there; the group before it has an odd
// number of inputs, of which this one stands beside the last.
void check_not_a_number(int group_width, bool halved, reference::Random& random,
                        reference::Errors& errors) {
  const Case of{{3, 3, 5, group_width, group_width, 1, 1}, false, false, halved};
  const Values taps = random.values(static_cast<size_t>(9) * group_width * of.outputs(), 1, 2);
  const Convolution conv = convolution(of, taps, random);
  Values values = random.values(static_cast<size_t>(9) * of.outputs() + LANES, -1, 1);
  Values results(static_cast<size_t>(9) * of.outputs());
  values[4 * of.outputs() + 2 * group_width] = NAN;
  std::vector<BFloat16> halves(results.size());
  run(conv, {values.data(), 3, 3, of.outputs()}, {results.data(), 3, 3, of.outputs()}, 0,
      {halved ? halves.data() : nullptr, 3, 3, of.outputs()}, 1);
  for (size_t k = 0; k < results.size(); ++k)
    errors.require(of.name() + "what is not a number",
                   std::isnan(results[k]) == (k % of.outputs() / group_width == 2));
}

Case draw(reference::Random& random) {
  Case of{};
  of.height = random.one_of({1, 2, 3, 5, 8});
  of.width = random.among(1, 32);
  of.group_width = random.one_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 24, 32, 40, 50});
  of.group_outputs =
      random.among(0, 4) ? of.group_width : random.one_of({1, 2, 3, 5, 8, 15, 16, 17, 33});
  of.groups = random.among(2, std::max(of.group_width, of.group_outputs) > 12 ? 3 : 17);
  of.stride = random.one_of({1, 2});
  of.threads = random.one_of({1, 2, 3, 7});
  of.bias = random.among(0, 1);
  of.relu = random.among(0, 1);
  of.halved = random.among(0, 1);
  return of;
}

void check_all(int cases, reference::Errors& errors) {
  for (int seed = 0; seed < cases; ++seed) {
    reference::Random random(seed);
    check(draw(random), random, errors);
  }
}

}  // namespace

int main(int count, char** values) {
  const int cases = count > 1 ? std::atoi(values[1]) : 400;
  reference::Errors errors;
  if (densepath::may_use_squares()) {
    // Their weights are zero between the groups of a plane: there what is not a number spreads.
    check_all(cases, errors);
    densepath::squares_allowed() = false;
  }
  check_all(cases, errors);
  reference::Random random(1);
  for (const int group_width : {1, 3, 5, 7, 13, 17})
    for (const bool halved : {false, true}) check_not_a_number(group_width, halved, random, errors);
  return errors.report("grouped");
}
