// Checks the 1×1 convolutions of a training step, both ways and in both kinds of products, and its
// passes, against loops in double.
#include "../../src/densepath/kernels/training/passes.hpp"
#include "../../src/densepath/kernels/training/pointwise_backward.hpp"
#include "reference.hpp"

namespace {

using densepath::BFloat16;
using densepath::Packed;
using densepath::PackedPairs;
using densepath::Taking;
using reference::Doubles;
using reference::HeldMaps;
using reference::HeldNorm;
using reference::Values;

struct Case {
  int images, height, width, inputs, outputs, threads;
  Taking taking;
  bool add, correction;

  int high() const { return side(height); }
  int wide() const { return side(width); }
  int side(int from) const {
    return taking == Taking::all ? from : taking == Taking::second ? (from + 1) / 2 : from / 2;
  }
  std::string name() const {
    std::string made;
    for (const int n : {images, height, width, inputs, outputs, threads, static_cast<int>(taking)})
      made += std::to_string(n) + " ";
    return made + (add ? "add " : "") + (correction ? "correction " : "");
  }

  // visit(input pixel, output pixel, share): what an output pixel is made of.
  template <class Visit>
  void each_pixel(const Visit& visit) const {
    const int step = taking == Taking::all ? 1 : 2, reach = taking == Taking::average ? 2 : 1;
    for (int n = 0; n < images; ++n)
      for (int y = 0; y < high(); ++y)
        for (int x = 0; x < wide(); ++x)
          for (int i = 0; i < reach; ++i)
            for (int j = 0; j < reach; ++j)
              visit((static_cast<size_t>(n) * height + y * step + i) * width + x * step + j,
                    (static_cast<size_t>(n) * high() + y) * wide() + x, 1.0 / (reach * reach));
  }
};

struct Subject {
  const Case& of;
  HeldMaps x;
  HeldNorm norm;
  Values weight;  // [outputs, inputs]

  Subject(const Case& of_, reference::Random& random)
      : of(of_),
        x(of.images, of.height, of.width, of.inputs, of.inputs + random.among(0, 5)),
        norm(random, of.inputs),
        weight(random.values(static_cast<size_t>(of.outputs) * of.inputs, -1, 1)) {
    // Of bfloat16, lest one that is rounded falls on the other side of the ReLU's kink.
    x.fill(
        [&](int c) { return densepath::as_rounded(densepath::splat(norm.value(random, c)))[0]; });
  }
};

template <class Weights, class Read>
void check_forward(const Subject& subject, reference::Random& random, reference::Errors& errors) {
  const Case& of = subject.of;
  HeldMaps out(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  if (of.add) out.fill([&](int) { return random.uniform(-1, 1); });
  Doubles wanted = of.add ? out.doubles() : Doubles(out.doubles().size());
  Doubles mean(of.outputs), variance(of.outputs), means, variances;
  const reference::Handed<Read> x(subject.x);
  densepath::pointwise<Weights>(x.maps, subject.norm.norms(), subject.weight.data(), of.taking,
                                out.maps, of.add, {mean.data(), variance.data()}, of.threads);
  const Doubles input = reference::activate(subject.x, subject.norm);
  of.each_pixel([&](size_t i, size_t o, double share) {
    for (int k = 0; k < of.outputs; ++k)
      for (int c = 0; c < of.inputs; ++c)
        wanted[o * of.outputs + k] +=
            share * input[i * of.inputs + c] * subject.weight[k * of.inputs + c];
  });
  errors.compare(of.name() + "out", out.doubles(), wanted);
  errors.require(of.name() + "out: written beside", out.is_whole());
  reference::moments(out.doubles(), of.outputs, means, variances);
  errors.compare(of.name() + "mean", mean, means);
  errors.compare(of.name() + "variance", variance, variances);
  Doubles again(of.outputs), apart(of.outputs);
  find_moments(out.maps, {again.data(), apart.data()}, of.threads);
  errors.compare(of.name() + "mean of a map", again, means);
  errors.compare(of.name() + "variance of a map", apart, variances);
}

template <class Weights, class Read>
void check_backward(const Subject& subject, reference::Random& random, reference::Errors& errors) {
  const Case& of = subject.of;
  HeldMaps data(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  HeldMaps y(of.images, of.high(), of.wide(), of.outputs, of.outputs + random.among(0, 5));
  data.fill([&](int) { return random.uniform(-1, 1); });
  y.fill([&](int) { return random.uniform(-1, 1); });
  const float size = of.correction ? 0.5f : 0.0f;
  const Values constant = random.values(of.outputs, -size, size);
  const Values slope = random.values(of.outputs, -size, size);
  HeldMaps into(of.images, of.height, of.width, of.inputs, of.inputs + random.among(0, 5));
  if (of.add) into.fill([&](int) { return random.uniform(-1, 1); });
  const Doubles before = into.doubles();
  densepath::Gradients gradient{data.maps, nullptr, nullptr, {}};
  if (of.correction) gradient = {data.maps, constant.data(), slope.data(), y.maps};
  if (!of.correction && of.outputs > densepath::LANES && random.among(0, 1)) {
    gradient.more = data.maps;
    gradient.more.data += densepath::LANES;
    gradient.more.channels -= gradient.data.channels = densepath::LANES;
  }
  Values weight(subject.weight.size(), NAN);
  Doubles sum(of.inputs, NAN), product(of.inputs, NAN);
  const reference::Handed<Read> x(subject.x);
  densepath::pointwise_backward<Weights>(x.maps, subject.norm.norms(), subject.weight.data(),
                                         of.taking, gradient, into.maps, of.add, weight.data(),
                                         {sum.data(), product.data()}, of.threads);

  const Doubles input = reference::activate(subject.x, subject.norm);
  const Doubles whole = reference::correct(data, y, constant, slope);
  Doubles behind(input.size()), weights(weight.size());
  of.each_pixel([&](size_t i, size_t o, double share) {
    for (int k = 0; k < of.outputs; ++k)
      for (int c = 0; c < of.inputs; ++c) {
        const double given = share * whole[o * of.outputs + k];
        behind[i * of.inputs + c] += given * subject.weight[k * of.inputs + c];
        weights[k * of.inputs + c] += given * input[i * of.inputs + c];
      }
  });
  reference::Backward wanted(subject.x, subject.norm, behind);
  if (of.add)
    for (size_t k = 0; k < before.size(); ++k) wanted.into[k] += before[k];
  errors.compare(of.name() + "into", into.doubles(), wanted.into);
  errors.compare(of.name() + "weight", weight, weights);
  errors.compare(of.name() + "gradient", sum, wanted.gradient, wanted.gradient_size);
  errors.compare(of.name() + "product", product, wanted.product, wanted.product_size);
  errors.require(of.name() + "into: written beside", into.is_whole());

  correct(data.maps, constant.data(), slope.data(), y.maps, of.threads);
  errors.compare(of.name() + "correct", data.doubles(), whole);
  errors.require(of.name() + "correct: written beside", data.is_whole());
}

Case draw(reference::Random& random) {
  Case of{};
  of.images = random.one_of({1, 2, 3, 5});
  of.height = random.one_of({2, 3, 5, 7, 8, 14});
  of.width = random.one_of({2, 4, 5, 7, 11, 13});
  of.inputs = random.one_of({1, 5, 16, 23, 48, 65, 100, 128, 300});
  of.outputs = random.one_of({1, 3, 12, 32, 48, 65, 128, 300});
  of.threads = random.one_of({1, 2, 3, 7});
  of.taking = static_cast<Taking>(random.among(0, 2));
  of.add = random.among(0, 1) != 0;
  of.correction = random.among(0, 1) != 0;
  return of;
}

template <class Weights, class Read = float>
int check(const char* what, double bound) {
  reference::Random random(1);
  reference::Errors errors(bound);
  for (int i = 0; i < 40; ++i) {
    const Case of = draw(random);
    const Subject subject(of, random);
    check_forward<Weights, Read>(subject, random, errors);
    check_backward<Weights, Read>(subject, random, errors);
  }
  return errors.report(what);
}

}  // namespace

int main() {
  // A number of bfloat16 has 8 bits, and a sum over few pixels may be smaller than its terms.
  constexpr double BOUND = 1.0 / 16;
  const int failed = check<Packed>("pointwise", reference::BOUND) +
                     check<PackedPairs>("pointwise in bfloat16", BOUND) +
                     check<PackedPairs, BFloat16>("pointwise of bfloat16", BOUND);
  if (!densepath::may_use_squares()) return failed;
  densepath::squares_allowed() = false;
  return failed + check<PackedPairs>("pointwise in bfloat16 without AMX", BOUND);
}
