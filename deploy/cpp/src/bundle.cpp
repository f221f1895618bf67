#include "bundle.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "file.hpp"
#include "predictions.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace densepath {
namespace {

using Json = nlohmann::json;

constexpr char MANIFEST[] = "manifest.json";
constexpr char MANIFEST_HASH[] = "manifest.json.sha256";
constexpr char FORMAT[] = "densepath-bundle";
constexpr double MOST_TEMPERATURE = 1e6;
constexpr int SCHEMA_VERSION = 1;
constexpr size_t HASH_DIGITS = 64;
constexpr uint64_t MOST_MANIFEST_BYTES = uint64_t{64} << 20;

const std::set<std::string>& known_fields() {
  static const std::set<std::string> fields = {"format",      "schema_version", "model",  "labels",
                                               "multi_label", "preprocess",     "input",  "output",
                                               "precision",   "formats",        "files",  "source",
                                               "tools",       "parity",         "created"};
  return fields;
}

// Those that a manifest may lack: `quantization` is of an INT8 bundle alone, the others are there
// where they were chosen.
const std::set<std::string>& optional_fields() {
  static const std::set<std::string> fields = {"quantization", "thresholds", "temperature"};
  return fields;
}

std::string in_folder(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

// The bytes of a file of the folder, which must be a plain one, of the size that the manifest
// says, where it says one.
Contents read_file(const std::string& folder, const std::string& name,
                   std::optional<uint64_t> size_bytes = std::nullopt) {
  namespace fs = std::filesystem;
  const std::string path = in_folder(folder, name);
  const std::string start = folder + ": " + name + " ";
  std::error_code ignored;
  const fs::file_status found = fs::symlink_status(path, ignored);
  if (!fs::is_regular_file(found)) {
    const std::string what = fs::is_symlink(found) ? "is a link, not a file" : "is missing";
    throw BundleError(start + what + "; copy the whole bundle again.");
  }
  const uint64_t size = fs::file_size(path, ignored);
  if (size_bytes && size != *size_bytes) {
    throw BundleError(start + "has " + with_commas(size) + " bytes, not the " +
                      with_commas(*size_bytes) + " of the manifest; copy the bundle again.");
  }
  if (!size_bytes && size > MOST_MANIFEST_BYTES) {
    throw BundleError(start + "is larger than any manifest is.");
  }
  if (size == 0) return {};
  try {
    return File(path).read(static_cast<size_t>(size));
  } catch (const ImageError& error) {
    throw BundleError(start + "cannot be read: " + error.what() + ".");
  }
}

// The manifest's bytes, once they are what `manifest.json.sha256` says.
Contents read_manifest(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto is_there = [&](const char* name) {
    return fs::exists(in_folder(folder, name), ignored);
  };
  if (!is_there(MANIFEST) && !is_there(MANIFEST_HASH)) {
    const bool is_folder = fs::is_directory(folder, ignored);
    const std::string around = fs::path(folder).parent_path().string();
    const std::string parent = around.empty() ? "." : around;
    if (!is_folder && fs::exists(folder, ignored) &&
        fs::exists(in_folder(parent, MANIFEST), ignored)) {
      throw BundleError(folder + " is a file of the bundle " + parent + ": name that folder.");
    }
    throw BundleError(folder + " is not a bundle: it " +
                      (is_folder ? "has no manifest.json" : "is not a folder") +
                      ". `densepath export` makes bundles.");
  }
  Contents manifest = read_file(folder, MANIFEST);
  const Contents line = read_file(folder, MANIFEST_HASH);
  const size_t length = std::min(line.size(), HASH_DIGITS);
  const std::string stated(line.begin(), line.begin() + static_cast<ptrdiff_t>(length));
  const std::string actual = sha256(manifest.data(), manifest.size());
  if (stated != actual) {
    throw BundleError(folder + ": manifest.json was changed: its sha256 is " + actual + ", and " +
                      MANIFEST_HASH + " says " + printable(stated) +
                      ". Copy the bundle again, or export it anew.");
  }
  return manifest;
}

// Reads fields of the manifest and names the one that is wrong.
class Reader {
 public:
  Reader(const Json& json, std::string folder, std::string field)
      : json_(json), folder_(std::move(folder)), field_(std::move(field)) {}

  [[noreturn]] void wrong(const std::string& why) const {
    throw BundleError(folder_ + ": manifest.json: " + field_ + " " + why + ".");
  }

  Reader operator[](const std::string& key) const {
    const Reader inside(json_.is_object() && json_.contains(key) ? json_[key] : none(), folder_,
                        field_.empty() ? key : field_ + "." + key);
    if (!json_.is_object() || !json_.contains(key)) inside.wrong("is missing");
    return inside;
  }

  std::string text() const {
    if (!json_.is_string()) wrong("must be a text");
    return json_.get<std::string>();
  }

  bool flag() const {
    if (!json_.is_boolean()) wrong("must be true or false");
    return json_.get<bool>();
  }

  double number() const {
    if (!json_.is_number()) wrong("must be a number");
    return json_.get<double>();
  }

  // Whether the text is the second of two choices, of which it must be one.
  bool is_second(const std::string& first, const std::string& second) const {
    const std::string found = text();
    if (found != first && found != second) {
      wrong("is " + json_string(found, true) + "; choices: " + first + ", " + second);
    }
    return found == second;
  }

  uint64_t count() const {
    if (!json_.is_number_unsigned()) wrong("must be a whole number of 0 or more");
    return json_.get<uint64_t>();
  }

  // A name within the folder: no separators, nothing hidden.
  std::string file_name() const {
    const std::string name = text();
    static constexpr std::string_view PLAIN =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    const bool plain = !name.empty() && name[0] != '.' && name[0] != '-' &&
                       name.find_first_not_of(PLAIN) == std::string::npos;
    if (!plain) wrong("is " + json_string(name, true) + ", not a plain name of a file");
    return name;
  }

  template <typename Each>
  void each_item(Each each) const {
    if (!json_.is_array()) wrong("must be a list");
    size_t index = 0;
    for (const Json& item : json_) {
      each(Reader(item, folder_, field_ + "[" + std::to_string(index++) + "]"));
    }
  }

  template <typename Each>
  void each_field(Each each) const {
    if (!json_.is_object()) wrong("must be an object");
    for (const auto& [key, value] : json_.items()) {
      each(key, Reader(value, folder_, field_.empty() ? key : field_ + "." + key));
    }
  }

  bool has(const std::string& key) const { return json_.is_object() && json_.contains(key); }
  bool is_null() const { return json_.is_null(); }

 private:
  static const Json& none() {
    static const Json null;
    return null;
  }

  const Json& json_;
  std::string folder_, field_;
};

std::vector<std::string> texts(const Reader& list) {
  std::vector<std::string> values;
  list.each_item([&](const Reader& item) { values.push_back(item.text()); });
  return values;
}

// The sizes of an input or output; 0 stands for any.
std::vector<size_t> shape_of(const Reader& tensor, size_t num_dimensions) {
  if (tensor["dtype"].text() != "float32") tensor["dtype"].wrong("must be \"float32\"");
  std::vector<size_t> shape;
  tensor["shape"].each_item([&](const Reader& size) {
    shape.push_back(size.is_null() ? 0 : static_cast<size_t>(size.count()));
  });
  if (shape.size() != num_dimensions) {
    tensor["shape"].wrong("must have " + std::to_string(num_dimensions) + " dimensions");
  }
  return shape;
}

Intensity read_intensity(const Reader& fields) {
  Intensity made;
  fields.each_field([](const std::string& key, const Reader& value) {
    if (key != "kind" && key != "values") value.wrong("is a field that version 1 does not have");
  });
  made.kind = fields["kind"].text();
  fields["values"].each_item([&](const Reader& one) { made.values.push_back(one.number()); });
  if (const std::string wrong = made.wrong(); !wrong.empty()) fields.wrong(wrong);
  return made;
}

Preprocess read_preprocess(const Reader& fields) {
  static const std::set<std::string> kinds = {"bilinear", "bicubic", "cv2_bilinear"};
  Preprocess made;
  std::vector<size_t> size;
  fields["size"].each_item(
      [&](const Reader& side) { size.push_back(static_cast<size_t>(side.count())); });
  fields["mean"].each_item([&](const Reader& one) { made.mean.push_back(one.number()); });
  fields["std"].each_item([&](const Reader& one) {
    made.std.push_back(one.number());
    if (!(made.std.back() > 0)) one.wrong("must be above 0");
  });
  if (size.size() != 2 || size[0] * size[1] * made.mean.size() == 0) {
    fields.wrong("must have a size of height and width, and a mean a channel");
  }
  if (made.mean.size() != made.std.size()) fields["std"].wrong("must have one value a channel");
  made.height = size[0];
  made.width = size[1];
  if (!fields["resize_short"].is_null()) {
    made.resize_short = static_cast<size_t>(fields["resize_short"].count());
    if (made.resize_short < std::min(size[0], size[1])) {
      fields["resize_short"].wrong("is less than the size");
    }
  }
  made.interpolation = fields["interpolation"].text();
  if (kinds.count(made.interpolation) == 0) {
    fields["interpolation"].wrong("is " + json_string(made.interpolation, true) +
                                  "; choices: bicubic, bilinear, cv2_bilinear");
  }
  if (fields.has("intensity")) made.intensity = read_intensity(fields["intensity"]);
  made.rounds_side = fields["side_rounding"].is_second("truncate", "round");
  made.floors_corner = fields["crop_rounding"].is_second("round", "floor");
  return made;
}

// What preprocessing gives, which must be what the model takes.
InputSize read_input_size(const Reader& manifest, const Preprocess& preprocess) {
  const size_t channels = preprocess.mean.size();
  const std::vector<size_t> size = {preprocess.height, preprocess.width};
  const std::vector<size_t> given = {0, channels, size[0], size[1]};
  const std::vector<size_t> taken = shape_of(manifest["input"], 4);
  for (size_t i = 1; i < given.size(); ++i) {
    if (taken[i] != 0 && taken[i] != given[i]) {
      manifest["input"]["shape"].wrong("does not fit to what preprocess gives");
    }
  }
  return {channels, size[0], size[1]};
}

void check_version(const Reader& manifest, const std::string& folder) {
  if (!manifest.has("format") || manifest["format"].text() != FORMAT) {
    throw BundleError(folder + ": manifest.json does not say that it describes a " + FORMAT + ".");
  }
  const uint64_t version = manifest["schema_version"].count();
  if (version != SCHEMA_VERSION) {
    throw BundleError(folder + ": its schema version is " + std::to_string(version) +
                      "; this densepath reads version " + std::to_string(SCHEMA_VERSION) +
                      ". Export it again, or use the densepath that wrote it.");
  }
}

// The thresholds and the temperature, where they were chosen.
Decisions read_decisions(const Reader& manifest, size_t num_classes, bool multi_label) {
  Decisions made;
  if (manifest.has("temperature")) {
    const double temperature = manifest["temperature"].number();
    if (!(temperature > 0 && temperature <= MOST_TEMPERATURE)) {
      manifest["temperature"].wrong("is not above 0 and up to 1e+06");
    }
    made.temperature = temperature;
  }
  if (!manifest.has("thresholds")) return made;
  std::vector<double> thresholds;
  manifest["thresholds"].each_item([&](const Reader& item) {
    thresholds.push_back(item.number());
    if (!(thresholds.back() >= 0 && thresholds.back() <= 1)) item.wrong("does not lie in 0 … 1");
  });
  if (thresholds.size() != num_classes || !multi_label) {
    manifest["thresholds"].wrong("must be one for each class of a multi-label network");
  }
  made.thresholds = thresholds;
  return made;
}

// Of `parity`, whose other members are for people.
std::optional<BFloat16Report> read_bfloat16(const Reader& parity) {
  if (!parity.has("bfloat16")) return std::nullopt;
  const Reader report = parity["bfloat16"];
  const bool finite = report.has("max_difference") && !report["max_difference"].is_null();
  if (finite) static_cast<void>(report["max_difference"].number());
  return BFloat16Report{report["num_images"].count(),
                        report["ties"].count(),
                        report["top1"].number(),
                        report["top5"].number(),
                        finite,
                        report.has("amx") && report["amx"].flag(),
                        report.has("by_score") && report["by_score"].flag()};
}

// Fills what is read of the manifest; its other fields only have to be there.
void read_fields(const Reader& manifest, Bundle& bundle) {
  manifest.each_field([](const std::string& key, const Reader& value) {
    if (known_fields().count(key) == 0 && optional_fields().count(key) == 0) {
      value.wrong("is a field that version 1 does not have");
    }
  });
  for (const std::string& field : known_fields()) static_cast<void>(manifest[field]);
  bundle.model_name = manifest["model"]["name"].text();
  bundle.precision = manifest["precision"].text();
  bundle.labels = texts(manifest["labels"]);
  bundle.multi_label = manifest["multi_label"].flag();
  bundle.decisions = read_decisions(manifest, bundle.labels.size(), bundle.multi_label);
  bundle.bfloat16 = read_bfloat16(manifest["parity"]);
  bundle.input_name = manifest["input"]["name"].text();
  bundle.output_name = manifest["output"]["name"].text();
  bundle.preprocess = read_preprocess(manifest["preprocess"]);
  bundle.input_size = read_input_size(manifest, bundle.preprocess);
  manifest["formats"].each_field([&](const std::string& name, const Reader& format) {
    BundleFormat& parts = bundle.formats[name];
    parts.model = format["model"].file_name();
    if (format.has("preprocess")) parts.preprocess = format["preprocess"].file_name();
  });
  manifest["files"].each_field([&](const std::string& name, const Reader& file) {
    const Json as_text = name;
    const std::string plain = Reader(as_text, bundle.folder, "files").file_name();
    bundle.files[plain] = {file["sha256"].text(), file["size_bytes"].count(),
                           texts(file["formats"])};
  });
  const size_t num_logits = shape_of(manifest["output"], 2)[1];
  if (bundle.labels.size() != num_logits || bundle.labels.empty()) {
    manifest["labels"].wrong("has " + std::to_string(bundle.labels.size()) + " names for " +
                             std::to_string(num_logits) + " logits");
  }
}

}  // namespace

Bundle Bundle::open(const std::string& folder) {
  const Contents text = read_manifest(folder);
  const Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  const Reader manifest(json, folder, "");
  if (!json.is_object()) {
    throw BundleError(folder + ": manifest.json is not a JSON object.");
  }
  Bundle bundle;
  bundle.folder = folder;
  check_version(manifest, folder);
  read_fields(manifest, bundle);
  return bundle;
}

std::map<std::string, Contents> Bundle::read(const std::string& format) const {
  if (formats.count(format) == 0) refuse_format({format});
  std::map<std::string, Contents> contents;
  for (const auto& [name, file] : files) {
    if (std::count(file.formats.begin(), file.formats.end(), format) == 0) continue;
    Contents bytes = read_file(folder, name, file.size_bytes);
    const std::string actual = sha256(bytes.data(), bytes.size());
    if (actual != file.sha256) {
      throw BundleError(folder + ": " + name + " was changed: its sha256 is " + actual +
                        ", not the manifest's " + printable(file.sha256) +
                        ". Copy the bundle again.");
    }
    contents[name] = std::move(bytes);
  }
  const BundleFormat& parts = formats.at(format);
  for (const std::string& name : {parts.model, parts.preprocess}) {
    if (!name.empty() && contents.count(name) == 0) {
      throw BundleError(folder + ": manifest.json: files lacks " + name + ", which the format " +
                        format + " needs.");
    }
  }
  return contents;
}

const std::string& Bundle::preprocess_graph(const std::string& format) const {
  const std::string& name = formats.at(format).preprocess;
  if (name.empty()) {
    throw BundleError(folder + ": its format " + format + " has no preprocess graph.");
  }
  return name;
}

void Bundle::refuse_format(const std::vector<std::string>& wanted) const {
  const std::string verb = is_quantised() ? "quantize SUBJECT --data DATA" : "export SUBJECT";
  throw BundleError(folder + " has no " + join(wanted, " or ") + " format; it has " +
                    format_names(", ") + ". Add it: densepath " + verb + " --to " +
                    format_names(",") + "," + wanted.front() + " -o DIR");
}

std::string Bundle::format_names(const std::string& between) const {
  std::vector<std::string> names;
  for (const auto& [name, parts] : formats) names.push_back(name);
  return join(names, between);
}

}  // namespace densepath
