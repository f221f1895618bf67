#include "precision.hpp"

#include <cstdio>

#include "text.hpp"

namespace densepath {
namespace {

constexpr double LEAST_SAME_FIVE = 0.99;  // As Python's bundle/bfloat16.py.

std::string percent(double share) {
  char text[40];
  std::snprintf(text, sizeof text, "%.1f %%", share * 100);
  return text;
}

std::string counted(uint64_t number, const std::string& what) {
  return with_commas(number) + " " + what + (number == 1 ? "" : "s");
}

std::string describe(const BFloat16Report& report) {
  return "the best class is the same on " + percent(report.top1) + " of " +
         counted(report.num_images, "image") +
         (report.ties > 0 ? ", " + counted(report.ties, "tie") + " among them" : "") +
         ", the five best are on " + percent(report.top5);
}

bool is_enough(const BFloat16Report& report) {
  return report.num_images > 0 && report.top1 >= 1 && report.top5 >= LEAST_SAME_FIVE;
}

// Of our kernels, which alone compute in bfloat16 unasked.
Chosen judge(const std::string& backend, const Bundle& bundle) {
  const std::string missing = native_bfloat16_obstacle();
  if (!missing.empty()) return {backend, "float32", missing};
  if (!bundle.bfloat16) {
    return {backend, "float32", "the bundle has no report on bfloat16; exported anew it has one"};
  }
  return {backend, is_enough(*bundle.bfloat16) ? "bfloat16" : "float32",
          "by the bundle's report on bfloat16 " + describe(*bundle.bfloat16)};
}

}  // namespace

Chosen choose(const Settings& settings, const Bundle& bundle) {
  const bool open = settings.precision == "auto";
  Settings asked = settings;
  if (open) asked.precision = "float32";
  const std::string backend = choose_backend(asked, bundle);
  if (bundle.is_quantised()) return {backend, bundle.precision, {}};
  if (backend != "native") return {backend, asked.precision, {}};
  if (open) return judge(backend, bundle);
  if (asked.precision == "float32") return {backend, "float32", {}};
  const std::string missing = native_bfloat16_obstacle();
  const std::string slower = "as asked; " + missing + ", so that it is slower than float32";
  return {backend, "bfloat16", missing.empty() ? "" : slower};
}

#ifndef DENSEPATH_NATIVE
std::string native_bfloat16_obstacle() { return "our kernels are not built in"; }
#endif

}  // namespace densepath
