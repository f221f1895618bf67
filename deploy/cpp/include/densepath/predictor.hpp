// From an exported Bundle and image files to named answers, without Python.
//
//     densepath::Predictor predictor("my-bundle");
//     std::cout << densepath::to_json(predictor.predict("cat.jpg"));
//
// The arithmetic is the Bundle's own: files are decoded as `densepath` decodes them; what resizes,
// normalises and gives the logits was compared with the checkpoint on real images.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace densepath {

/// Something a user can mend; `exit_code` is what the program ends with.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int code = 1)
      : std::runtime_error(message), code_(code) {}

  int exit_code() const { return code_; }

 private:
  int code_;
};

/// A wrong argument or option: exit code 2.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(message, 2) {}
};

/// A folder that is no whole Bundle: a file missing, changed, or of another version.
class BundleError : public Error {
 public:
  using Error::Error;
};

/// One image that cannot be read; `what()` is the reason, without the name.
class ImageError : public Error {
 public:
  using Error::Error;
};

/// Pixels, uint8 [height, width, channels], values 0 to 255; channels 3 (RGB) or 1 (gray).
struct Image {
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels = 3;
  std::vector<std::uint8_t> pixels;
};

/// The best classes of one image, the likeliest first; or why it has none.
struct Prediction {
  std::string path;
  std::vector<std::size_t> class_ids;
  std::vector<std::string> labels;
  std::vector<double> scores;  ///< 0 to 1: of one class among all, or of each if multi-label.
  std::optional<std::string> error;
};

/// The answer as one line of JSON, byte for byte as `densepath predict --json` writes it.
std::string to_json(const Prediction& prediction);

/// An image to come: its name, or a name that already failed and why.
struct Source {
  std::string path;
  std::optional<std::string> error = std::nullopt;
};

/// How a Predictor computes.
struct Settings {
  std::string backend = "auto";       ///< auto, native, openvino or onnxruntime.
  std::string precision = "float32";  ///< float32 or bfloat16 (openvino only).
  std::size_t threads = 0;            ///< Of the network; 0: one a usable core.
  std::size_t batch_size = 0;         ///< Images of one run; 0: 2 for each of several threads.
};

class Backend;
struct Bundle;

/// A network ready to answer. Not copied; one thread at a time may call it.
class Predictor {
 public:
  using Next = std::function<std::optional<Source>()>;
  using Take = std::function<bool(const Prediction&)>;
  using Waiting = std::function<bool(std::chrono::milliseconds)>;

  /// Opens and verifies the Bundle and loads its network.
  ///
  /// Throws UsageError (an unknown back end or precision), BundleError (the Bundle is not whole),
  /// Error (the runtime cannot load it).
  explicit Predictor(const std::string& bundle, const Settings& settings = {});
  ~Predictor();
  Predictor(Predictor&&) noexcept;
  Predictor& operator=(Predictor&&) noexcept;

  /// The answer for one file; its `error` says why when the file cannot be read.
  Prediction predict(const std::string& path, std::size_t top_k = 5);

  /// The answer for pixels in memory. Throws UsageError when they are not what the Bundle takes.
  Prediction predict(const Image& image, std::size_t top_k = 5);

  /// One answer for each image that `next` names until it gives none, in order. Threads are at most
  /// two batches a stream ahead. Ends early when `take` returns false.
  ///
  /// `waiting` is for images that come in their own time, from a pipe or a camera: it says whether
  /// `next` would return at once, and waits so long for that. Each image is then answered as soon
  /// as no other is there; without `waiting` answers may wait for a batch to be full.
  void predict(const Next& next, const Take& take, std::size_t top_k = 5,
               const Waiting& waiting = nullptr);

  const Bundle& bundle() const;
  Backend& backend();
  const Settings& settings() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace densepath
