#include <algorithm>
#include <thread>

#include "backend.hpp"
#include "text.hpp"

namespace densepath {
namespace {

constexpr std::size_t kMostReaders = 16;

/// A back end and the Bundle's format that it reads.
struct Entry {
  const char* name;
  const char* format;
  std::unique_ptr<Backend> (*make)(const Bundle&, const Settings&);
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> built = {
#ifdef DENSEPATH_OPENVINO
      {"openvino", "openvino", make_openvino},
#endif
#ifdef DENSEPATH_ONNXRUNTIME
      {"onnxruntime", "onnx", make_onnxruntime},
#endif
  };
  return built;
}

std::size_t num_cores() { return std::max<std::size_t>(std::thread::hardware_concurrency(), 1); }

const Entry* find_entry(const std::string& name) {
  const auto found = std::find_if(entries().begin(), entries().end(),
                                  [&](const Entry& entry) { return name == entry.name; });
  return found == entries().end() ? nullptr : &*found;
}

}  // namespace

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) names.emplace_back(entry.name);
  return names;
}

std::string choose_backend(const std::string& name, const Bundle& bundle) {
  if (name != "auto") {
    if (find_entry(name) != nullptr) return name;
    const bool exists = name == "openvino" || name == "onnxruntime";
    const std::string why =
        exists ? "this program was built without the back end '" : "unknown back end '";
    throw UsageError(why + printable(name) + "'. Choices: auto, " + join(backend_names(), ", ") +
                     ".");
  }
  for (const Entry& entry : entries()) {
    if (bundle.formats.count(entry.format) > 0) return entry.name;
  }
  std::vector<std::string> there, wanted;
  for (const auto& [format, parts] : bundle.formats) there.push_back(format);
  for (const Entry& entry : entries()) wanted.emplace_back(entry.format);
  throw BundleError(bundle.folder + " has the formats " + join(there, ", ") +
                    "; this program reads " + join(wanted, " and ") +
                    ". `densepath export` can add it.");
}

std::unique_ptr<Backend> make_backend(const Bundle& bundle, const Settings& settings) {
  return find_entry(settings.backend)->make(bundle, settings);
}

std::size_t num_threads(const Settings& settings) {
  return settings.threads > 0 ? settings.threads : num_cores();
}

std::size_t num_readers() { return std::min(num_cores(), kMostReaders); }

}  // namespace densepath
