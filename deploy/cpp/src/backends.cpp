#include <algorithm>

#include "backend.hpp"
#include "cores.hpp"
#include "spread.hpp"
#include "text.hpp"
#ifdef DENSEPATH_NATIVE
#include "processor.hpp"
#endif

namespace densepath {
namespace {

constexpr size_t MOST_READERS = 64;
constexpr size_t MOST_ALONE = 8;

// A back end, the formats that it reads of a float and of an INT8 Bundle, and whether it computes
// in bfloat16.
struct Entry {
  const char* name;
  const char* float_format;
  const char* int8_format;
  bool bfloat16;
  std::unique_ptr<Backend> (*make)(const Bundle&, const Settings&);

  const char* format_in(const Bundle& bundle) const {
    return bundle.is_quantised() ? int8_format : float_format;
  }

  // Why this processor cannot run it, or an empty text.
  std::string obstacle() const {
    return std::string(name) == "native" ? processor_obstacle() : std::string();
  }
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> built = {
#ifdef DENSEPATH_NATIVE
      {"native", "torch", "native", true, make_native},
#endif
#ifdef DENSEPATH_OPENVINO
      {"openvino", "openvino", "openvino", true, make_openvino},
#endif
#ifdef DENSEPATH_ONNXRUNTIME
      {"onnxruntime", "onnx", "onnx", false, make_onnxruntime},
#endif
  };
  return built;
}

const Entry* find_entry(const std::string& name) {
  const auto found = std::find_if(entries().begin(), entries().end(),
                                  [&](const Entry& entry) { return name == entry.name; });
  return found == entries().end() ? nullptr : &*found;
}

[[noreturn]] void refuse_name(const std::string& name) {
  const bool exists = name == "native" || name == "openvino" || name == "onnxruntime";
  const std::string why =
      exists ? "this program was built without the back end '" : "unknown back end '";
  throw UsageError(why + printable(name) + "'. Choices: auto, " + join(backend_names(), ", ") +
                   ".");
}

}  // namespace

std::string processor_obstacle() {
#ifdef DENSEPATH_NATIVE
  const std::string missing = lacking();
  if (missing.empty()) return {};
  const std::string march = DENSEPATH_MARCH;
  return "the back end native was compiled for newer processors (" +
         (march.empty() ? "the compiler's default" : "DENSEPATH_MARCH is " + march) +
         "): this one, " + printable(processor_name()) + ", lacks " + missing +
         ". Build it for this one: cmake -DDENSEPATH_MARCH=" + processor_level();
#else
  return {};
#endif
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) names.emplace_back(entry.name);
  return names;
}

std::string choose_backend(const Settings& settings, const Bundle& bundle) {
  const std::string& name = settings.backend;
  const bool bfloat16 = settings.precision == "bfloat16";
  if (bfloat16 && bundle.is_quantised()) {
    throw UsageError(bundle.folder +
                     " is quantised to int8, and cannot be run in bfloat16. Leave "
                     "the precision out, or name the float bundle that it was made of.");
  }
  if (name != "auto") {
    const Entry* entry = find_entry(name);
    if (entry == nullptr) refuse_name(name);
    if (bfloat16 && !entry->bfloat16) {
      throw UsageError("the back end '" + name +
                       "' computes in float32; the back ends native and openvino "
                       "can compute in bfloat16.");
    }
    if (const std::string why = entry->obstacle(); !why.empty()) throw UsageError(why);
    return name;
  }
  std::vector<std::string> wanted;
  std::string obstacle;
  for (const Entry& entry : entries()) {
    if (bfloat16 && !entry.bfloat16) continue;
    if (bundle.formats.count(entry.format_in(bundle)) > 0) {
      obstacle = entry.obstacle();
      if (obstacle.empty()) return entry.name;
    }
    wanted.emplace_back(entry.format_in(bundle));
  }
  if (!obstacle.empty()) throw UsageError(obstacle);
  if (wanted.empty()) {
    throw UsageError("no back end that was built in computes in bfloat16. Choices: float32.");
  }
  bundle.refuse_format(wanted);
}

std::unique_ptr<Backend> make_backend(const Bundle& bundle, const Settings& settings) {
  return find_entry(settings.backend)->make(bundle, settings);
}

size_t num_threads(const Settings& settings) {
  return settings.threads > 0 ? settings.threads : usable_cores();
}

size_t num_readers(size_t streams) {
  return std::min(std::max(usable_cores(), streams + 1), MOST_READERS);
}

size_t batch_size(const Settings& settings) {
  if (settings.batch_size > 0) return settings.batch_size;
  return num_threads(settings) > 1 ? MOST_OF_PART : MOST_ALONE;
}

void copy_logits(const float* logits, size_t found, size_t expected, float* to) {
  if (found != expected) {
    throw Error("the model gives " + std::to_string(found) + " logits, but the manifest says " +
                std::to_string(expected) + ".");
  }
  std::copy_n(logits, found, to);
}

void runtime_error(const std::string& what, const std::exception& error) {
  std::string reason = error.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  while (!reason.empty() && reason.back() == ' ') reason.pop_back();
  throw Error(what + ": " + reason);
}

}  // namespace densepath
