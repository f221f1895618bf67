#include "precision.hpp"

#include <cmath>

#include "text.hpp"

namespace densepath {
namespace {

// As Python's bundle/bfloat16.py.
constexpr double LEAST_SAME_FIVE = 0.99;
constexpr size_t FEW_CLASSES = 5;

// The share of so many images, exactly: a rounded one may look like enough.
std::string all_but(double share, uint64_t count) {
  const auto others = std::lround((1 - share) * static_cast<double>(count));
  return others > 0 ? "all but " + with_commas(static_cast<uint64_t>(others)) : "all";
}

std::string counted(uint64_t number, const std::string& what) {
  return with_commas(number) + " " + what + (number == 1 ? "" : "s");
}

std::string describe(const BFloat16Report& report) {
  return "the best class is the same on " + all_but(report.top1, report.num_images) + " of " +
         counted(report.num_images, "image") +
         (report.ties > 0 ? " (" + counted(report.ties, "tie") + ")" : "") +
         (report.by_score ? ", every score within 0.02 on " : ", the five best on ") +
         all_but(report.top5, report.num_images);
}

bool is_enough(const BFloat16Report& report) {
  return report.num_images > 0 && report.finite && report.top1 >= 1 &&
         report.top5 >= LEAST_SAME_FIVE;
}

// Of our kernels, which alone compute in bfloat16 unasked.
Chosen judge(const std::string& backend, const Bundle& bundle) {
  const std::string missing = native_bfloat16_obstacle();
  if (!missing.empty()) return {backend, "float32", missing};
  if (!bundle.bfloat16) {
    return {backend, "float32", "the bundle has no report on bfloat16; exported anew it has one"};
  }
  if (!bundle.bfloat16->amx && native_has_amx()) {
    return {backend, "float32",
            "the bundle's report on bfloat16 is from a processor without AMX, where less is "
            "rounded; exported anew here it has one"};
  }
  const bool by_score = bundle.multi_label || bundle.labels.size() <= FEW_CLASSES;
  if (is_enough(*bundle.bfloat16) && bundle.bfloat16->by_score != by_score) {
    return {backend, "float32",
            "the bundle's report on bfloat16 does not look at what decides for its classes; "
            "exported anew it does"};
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
  if (bundle.is_quantised()) {
    const bool other = settings.precision == "float32";
    return {backend, bundle.precision,
            other ? "as the bundle is stored; the one that it was made of answers in float32" : ""};
  }
  if (backend != "native") return {backend, asked.precision, {}};
  if (open) return judge(backend, bundle);
  if (asked.precision == "float32") return {backend, "float32", {}};
  const std::string missing = native_bfloat16_obstacle();
  const std::string slower = "as asked; " + missing + ", so that it is slower than float32";
  return {backend, "bfloat16", missing.empty() ? "" : slower};
}

#ifndef DENSEPATH_NATIVE
std::string native_bfloat16_obstacle() { return "our kernels are not built in"; }
bool native_has_amx() { return false; }
#endif

}  // namespace densepath
