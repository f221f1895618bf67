// Products in bfloat16 against plain loops in double over the same rounded numbers: every height
// of a tile, every width of a panel, odd counts of inputs, several pieces of columns.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "../../src/densepath/kernels/bfloat16.hpp"

using namespace densepath;

namespace {

int failures = 0;

void expect(bool right, const char* what) {
  if (right) return;
  ++failures;
  std::printf("wrong: %s\n", what);
}

BFloat16 rounded(float x) {
  BFloat16 held[LANES];
  store(held, splat(x));
  return held[0];
}

float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// To 8 bits of a normal number; of two equally near the even one.
double to_eight_bits(double x) {
  int exponent;
  const double part = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(part * 256), exponent - 8);
}

void check_rounding() {
  const float infinity = std::numeric_limits<float>::infinity();
  expect(to_float(rounded(infinity)) == infinity, "infinity");
  expect(to_float(rounded(-infinity)) == -infinity, "negative infinity");
  expect(to_float(rounded(std::numeric_limits<float>::max())) == infinity, "the largest number");
  expect(rounded(-0.0f).bits == 0x8000, "negative zero");
  for (const uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0x7f800001u, 0xff800001u})
    expect(std::isnan(to_float(rounded(of_bits(bits)))), "what is not a number");
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t exponent = 1 + random() % 253, sign = random() % 2;
    // Half of them lie in the middle of two neighbours, or beside it.
    uint32_t part = random() & 0x7fffff;
    if (i % 2) part = (part & 0x7f0000) + 0x7fff + random() % 3;
    const float x = of_bits(sign << 31 | exponent << 23 | part);
    expect(to_float(rounded(x)) == static_cast<float>(to_eight_bits(x)), "the nearest number");
  }
}

void check_product(int rows, int inputs, int outputs, bool with_bias, bool add, bool relu) {
  std::mt19937 random(static_cast<unsigned>(rows * 7919 + inputs * 31 + outputs));
  std::normal_distribution<float> normal;
  const int apart = inputs + LANES, ld = outputs + 3;
  std::vector<float> a(static_cast<size_t>(rows) * apart, std::nanf(""));
  std::vector<float> b(static_cast<size_t>(inputs) * outputs), c(static_cast<size_t>(rows) * ld);
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < inputs; ++i) a[static_cast<size_t>(r) * apart + i] = normal(random);
  for (float& x : b) x = normal(random);
  for (float& x : c) x = normal(random);
  const Floats bias = floats(round_up(outputs, PANEL));
  for (int o = 0; o < outputs; ++o) bias[o] = normal(random);
  const std::vector<float> before = c;
  const Floats scratch = floats(static_cast<size_t>(ROWS) * LDA);
  const auto pack = [&](int first, int count, BFloat16* to) {
    for (int r = 0; r < rows; ++r)
      copy(to + r * APART<BFloat16>, a.data() + static_cast<size_t>(r) * apart + first, count);
  };
  product(PackedPairs(b.data(), inputs, outputs), rows, pack, c.data(), ld,
          {with_bias ? bias.get() : nullptr, add, relu}, scratch.get());
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < ld; ++o) {
      const size_t at = static_cast<size_t>(r) * ld + o;
      if (o >= outputs) {
        expect(c[at] == before[at], "what stands beside the results");
        continue;
      }
      double sum = add ? before[at] : with_bias ? bias[o] : 0.0f, magnitudes = std::abs(sum);
      for (int i = 0; i < inputs; ++i) {
        const double one = to_eight_bits(a[static_cast<size_t>(r) * apart + i]) *
                           to_eight_bits(b[static_cast<size_t>(i) * outputs + o]);
        sum += one;
        magnitudes += std::abs(one);
      }
      if (relu && sum < 0) sum = 0;
      expect(std::abs(c[at] - sum) <= 1e-5 * magnitudes, "a product");
    }
}

void check_products() {
  for (int rows = 1; rows <= MR + 2; ++rows)
    for (const int outputs : {1, LANES - 1, LANES, LANES + 1, PANEL, PANEL + 5})
      check_product(rows, 2 * rows + outputs % 2, outputs, rows % 2, false, outputs % 2);
  for (const int inputs : {1, 2, 3, 511, 512, 513, 1025, 1300})
    for (const bool add : {false, true}) check_product(9, inputs, PANEL + 1, !add, add, add);
  check_product(ROWS, 700, 3 * PANEL - 1, true, false, true);
  expect(bfloat16_is_right(), "the kernels' own check");
}

}  // namespace

int main() {
  check_rounding();
  check_products();
  if (may_use_squares()) {
    squares_allowed() = false;
    check_products();
  }
  std::printf("%d wrong\n", failures);
  return failures != 0;
}
