// Checks the 3×3 convolutions of a training step, both ways, against loops in double.
#include "../../src/densepath/kernels/training/convolution.hpp"
#include "reference.hpp"

namespace {

using densepath::BFloat16;
using reference::Doubles;
using reference::Handed;
using reference::HeldMaps;
using reference::HeldNorm;
using reference::Values;

struct Case {
  int images, height, width, inputs, outputs, groups, stride, threads;
  bool add, correction;

  int high() const { return (height + stride - 1) / stride; }
  int wide() const { return (width + stride - 1) / stride; }
  std::string name() const {
    std::string made;
    for (const int n : {images, height, width, inputs, outputs, groups, stride, threads})
      made += std::to_string(n) + " ";
    return made + (add ? "add " : "") + (correction ? "correction " : "");
  }

  // visit(input, output, weight): every product of the convolution, by its indices.
  template <class Visit>
  void each_product(const Visit& visit) const {
    const int in = inputs / groups, out = outputs / groups;
    for (int n = 0; n < images; ++n)
      for (int y = 0; y < high(); ++y)
        for (int x = 0; x < wide(); ++x)
          for (int tap = 0; tap < 9; ++tap) {
            const int down = y * stride + tap / 3 - 1, across = x * stride + tap % 3 - 1;
            if (down < 0 || down >= height || across < 0 || across >= width) continue;
            const size_t from = (static_cast<size_t>(n) * height + down) * width + across;
            const size_t to = (static_cast<size_t>(n) * high() + y) * wide() + x;
            for (int o = 0; o < outputs; ++o)
              for (int i = 0; i < in; ++i)
                visit(from * inputs + o / out * in + i, to * outputs + o,
                      (static_cast<size_t>(o) * in + i) * 9 + tap);
          }
  }
};

struct Subject {
  const Case& of;
  HeldMaps x;
  HeldNorm norm;
  Values weight;

  Subject(const Case& of_, reference::Random& random)
      : of(of_),
        x(of.images, of.height, of.width, of.inputs, of.inputs + random.among(0, 5)),
        norm(random, of.inputs),
        weight(random.values(static_cast<size_t>(of.outputs) * of.inputs / of.groups * 9, -1, 1)) {
    // Of bfloat16, lest one that is rounded falls on the other side of the ReLU's kink.
    x.fill(
        [&](int c) { return densepath::as_rounded(densepath::splat(norm.value(random, c)))[0]; });
  }
};

template <class Number, class Made>
void check_forward(const Subject& subject, reference::Random& random, reference::Errors& errors) {
  const Case& of = subject.of;
  const Handed<Number> x(subject.x);
  HeldMaps out(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  Doubles mean(of.outputs), variance(of.outputs), means, variances;
  const bool statistics = random.among(0, 2) > 0;
  const Handed<Made> made(out);
  convolve(x.maps, subject.norm.norms(), subject.weight.data(), of.stride, of.groups, made.maps,
           statistics ? densepath::Statistics{mean.data(), variance.data()}
                      : densepath::Statistics{nullptr, nullptr},
           of.threads);
  made.back(out);
  const Doubles input = reference::activate(subject.x, subject.norm);
  Doubles wanted(out.doubles().size());
  of.each_product([&](size_t i, size_t o, size_t w) { wanted[o] += input[i] * subject.weight[w]; });
  errors.compare(of.name() + "out", out.doubles(), wanted);
  errors.require(of.name() + "out: written beside", out.is_whole());
  if (!statistics) return;
  reference::moments(out.doubles(), of.outputs, means, variances);
  errors.compare(of.name() + "mean", mean, means);
  errors.compare(of.name() + "variance", variance, variances);
}

struct Got {
  Values weight;
  Doubles gradient, product, into;
};

template <class Number>
Got run_backward(const Subject& subject, const densepath::Gradients& gradient, HeldMaps& into) {
  const Case& of = subject.of;
  const Handed<Number> x(subject.x), made(into);
  Got got{Values(subject.weight.size(), NAN), Doubles(of.inputs, NAN), Doubles(of.inputs, NAN), {}};
  convolve_backward(x.maps, subject.norm.norms(), subject.weight.data(), of.stride, of.groups,
                    gradient, made.maps, of.add, got.weight.data(),
                    {got.gradient.data(), got.product.data()}, of.threads);
  made.back(into);
  got.into = into.doubles();
  return got;
}

// `Made`: of the outputs that a gradient is corrected by.
template <class Number, class Made>
void check_backward(const Subject& subject, reference::Random& random, reference::Errors& errors) {
  const Case& of = subject.of;
  HeldMaps data(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  HeldMaps y(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  data.fill([&](int) { return random.uniform(-1, 1); });
  y.fill([&](int) { return densepath::as_rounded(densepath::splat(random.uniform(-1, 1)))[0]; });
  const float size = of.correction ? 0.5f : 0.0f;
  const Values constant = random.values(of.outputs, -size, size);
  const Values slope = random.values(of.outputs, -size, size);
  const int ld = of.inputs + random.among(0, 5);
  HeldMaps into(of.images, of.height, of.width, of.inputs, ld);
  HeldMaps again(of.images, of.height, of.width, of.inputs, ld);
  if (of.add) into.fill([&](int) { return random.uniform(-1, 1); });
  again.memory.assign(into.memory.begin(), into.memory.end());
  const Doubles before = into.doubles();
  densepath::Gradients gradient{data.maps, nullptr, nullptr, {}};
  const Handed<Made> outputs(y);
  if (of.correction) {
    gradient = {data.maps, constant.data(), slope.data(), y.maps};
    gradient.y.data = reinterpret_cast<float*>(outputs.maps.data);
    gradient.halved = std::is_same_v<Made, BFloat16>;
  }

  const Got got = run_backward<Number>(subject, gradient, into);
  const Doubles input = reference::activate(subject.x, subject.norm);
  const Doubles whole = reference::correct(data, y, constant, slope);
  Doubles behind(input.size()), weight(subject.weight.size());
  of.each_product([&](size_t i, size_t o, size_t w) {
    behind[i] += whole[o] * subject.weight[w];
    weight[w] += whole[o] * input[i];
  });
  reference::Backward wanted(subject.x, subject.norm, behind);
  if (of.add)
    for (size_t k = 0; k < before.size(); ++k) wanted.into[k] += before[k];
  errors.compare(of.name() + "into", got.into, wanted.into);
  errors.compare(of.name() + "weight", got.weight, weight);
  errors.compare(of.name() + "gradient", got.gradient, wanted.gradient);
  errors.compare(of.name() + "product", got.product, wanted.product);
  errors.require(of.name() + "into: written beside", into.is_whole());

  const Got twice = run_backward<Number>(subject, gradient, again);
  errors.require(of.name() + "a second run has other bits",
                 twice.into == got.into && twice.weight == got.weight &&
                     twice.gradient == got.gradient && twice.product == got.product);
}

Case draw(reference::Random& random) {
  Case of{};
  of.images = random.one_of({1, 2, 3, 5});
  of.height = random.one_of({1, 2, 3, 5, 7, 8, 10, 14});
  of.width = random.one_of({1, 2, 4, 5, 7, 8, 11, 13, 14, 17, 23, 27, 43});
  of.groups = random.one_of({1, 1, 1, 2, 5, 8});
  if (of.groups == 1) {
    of.inputs = random.one_of({1, 5, 16, 23, 48, 65, 128});
    of.outputs = random.one_of({1, 3, 12, 24, 32, 40, 48});
  } else {
    of.inputs = of.groups * random.one_of({1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40});
    of.outputs = random.among(0, 4) ? of.inputs : of.groups * random.one_of({1, 3, 8, 17});
  }
  of.stride = random.one_of({1, 1, 2});
  of.threads = random.one_of({1, 2, 3, 7});
  of.add = random.among(0, 1);
  of.correction = random.among(0, 1);
  return of;
}

template <class Number, class Made = Number>
int check(const char* what, int cases, double bound) {
  reference::Errors errors(bound);
  for (int seed = 0; seed < cases; ++seed) {
    reference::Random random(seed);
    const Case of = draw(random);
    const Subject subject(of, random);
    check_forward<Number, Made>(subject, random, errors);
    check_backward<Number, Made>(subject, random, errors);
  }
  return errors.report(what);
}

}  // namespace

int main(int count, char** values) {
  const int cases = count > 1 ? std::atoi(values[1]) : 150;
  constexpr double BOUND = 1.0 / 16;  // a number of bfloat16 has 8 bits
  int failed = check<float>("convolution", cases, reference::BOUND) +
               check<BFloat16>("convolution of bfloat16", cases, BOUND) +
               check<BFloat16, float>("convolution of bfloat16 into floats", cases, BOUND);
  if (!densepath::may_use_squares()) return failed;
  densepath::squares_allowed() = false;
  return failed + check<BFloat16>("convolution of bfloat16 without AMX", cases, BOUND);
}
