// A Bundle folder: opened, verified, its manifest read.
//
// The format is described in docs/export.md. What is verified is what is used: the files of one
// format are read into memory, hashed there, and given to the runtime from there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"
#include "predictions.hpp"
#include "preprocess.hpp"

namespace densepath {

// The files of one format, by the part they play.
struct BundleFormat {
  std::string model;       // model.xml, model.onnx, model.safetensors
  std::string preprocess;  // preprocess.xml, preprocess.onnx; empty where the format has no graph
};

// What a file must be.
struct BundleFile {
  std::string sha256;
  uint64_t size_bytes = 0;
  std::vector<std::string> formats;
};

// What the export measured of our kernels in bfloat16: Python's bundle/bfloat16.py.
struct BFloat16Report {
  uint64_t num_images = 0, ties = 0;
  double top1 = 0, top5 = 0;
  bool finite = true;     // every logit
  bool amx = false;       // through AMX, which rounds more
  bool by_score = false;  // `top5` is of the scores: there are few classes, or several an image
};

using Contents = std::vector<uint8_t>;

struct Bundle {
  std::string folder;
  std::string model_name;
  std::string precision;
  std::vector<std::string> labels;
  bool multi_label = false;
  Decisions decisions;
  std::optional<BFloat16Report> bfloat16;  // older Bundles have none
  std::string input_name, output_name;
  InputSize input_size;
  Preprocess preprocess;
  std::map<std::string, BundleFormat> formats;
  std::map<std::string, BundleFile> files;

  // Opens the folder and verifies the manifest's own hash, its JSON, version and fields.
  //
  // Throws BundleError.
  static Bundle open(const std::string& folder);

  // The files of `format` by name, each verified against its size and SHA-256.
  //
  // Throws BundleError: the format is not in the Bundle, or a file is missing or differs.
  std::map<std::string, Contents> read(const std::string& format) const;

  // The name of the format's preprocess graph. Throws BundleError: it has none.
  const std::string& preprocess_graph(const std::string& format) const;

  // Whether its weights and its activations are bytes.
  bool is_quantised() const { return precision == "int8"; }

  // Throws BundleError: it has none of the `wanted` formats, and how it gets the first.
  [[noreturn]] void refuse_format(const std::vector<std::string>& wanted) const;

 private:
  std::string format_names(const std::string& between) const;
};

}  // namespace densepath
