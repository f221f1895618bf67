// From an exported Bundle and images to named answers, without Python.
//
//     densepath::Predictor predictor("my-bundle");
//     std::cout << densepath::to_json(predictor.predict("cat.jpg"));
//
// The arithmetic is the Bundle's own: files are decoded as `densepath` decodes them; what resizes,
// normalises and gives the logits was compared with the checkpoint on real images.
//
// Threads: all functions of one Predictor may be called by several threads at the same time. Each
// call reads, decodes and resizes in its own thread; single images then have the network one after
// another, each with all of its threads. Making, moving and destroying are for one thread alone.
//
// Errors: what a caller can mend is thrown as densepath::Error, whose `what()` is one sentence for
// a user. One image that cannot be read throws nothing: its Prediction has an `error`. Beside these
// only std::bad_alloc and std::system_error (no thread could be started) pass. After any of them
// the Predictor is as it was before the call.
//
// Texts are UTF-8; names of files are bytes as the system has them.
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

#include "densepath/export.hpp"
#include "densepath/version.hpp"

namespace densepath {

/// Something a user can mend; `exit_code` is what the program ends with.
class DENSEPATH_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int code = 1);
  ~Error() override;

  int exit_code() const noexcept { return code_; }

 private:
  int code_;
};

/// A wrong argument or setting, or a back end that cannot be had here: exit code 2.
class DENSEPATH_API UsageError : public Error {
 public:
  explicit UsageError(const std::string& message);
  ~UsageError() override;
};

/// A folder that is no whole Bundle: a file missing, changed, or of another version.
class DENSEPATH_API BundleError : public Error {
 public:
  explicit BundleError(const std::string& message);
  ~BundleError() override;
};

/// One image that cannot be read; `what()` is the reason, without the name.
class DENSEPATH_API ImageError : public Error {
 public:
  explicit ImageError(const std::string& message);
  ~ImageError() override;
};

/// Pixels, uint8 [height, width, channels] row by row, values 0 to 255; channels 3 (RGB), 1 (gray)
/// or as many as the Bundle takes, upright, of any size.
struct Image {
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels = 3;
  std::vector<std::uint8_t> pixels;
};

/// The best classes of one image, the likeliest first; or why it has none.
struct Prediction {
  std::string path;  ///< As it was named; "image" for what came from memory without a name.
  std::vector<std::size_t> class_ids;  ///< Where each class stands in `Predictor::labels`.
  std::vector<std::string> labels;
  std::vector<double> scores;  ///< 0 to 1: of one class among all, or of each if multi-label.
  std::optional<std::string> error;
  /// All classes whose scores are above their thresholds, the likeliest first, whether `class_ids`
  /// has them or not; nothing where the Bundle has no thresholds.
  std::optional<std::vector<std::size_t>> positive_ids;
  std::vector<std::string> positive_labels;
};

/// The answer as one line of JSON, byte for byte as `densepath predict --json` writes it.
DENSEPATH_API std::string to_json(const Prediction& prediction);

/// An image to come: its name, or a name that already failed and why.
struct Source {
  std::string path;
  std::optional<std::string> error = std::nullopt;
  /// The bytes of a JPEG or PNG file, where they are in memory; else the file `path` is read.
  std::shared_ptr<const std::vector<std::uint8_t>> bytes = nullptr;
};

/// How a Predictor computes.
struct Settings {
  std::string backend = "auto";  ///< auto, native, openvino or onnxruntime.
  /// float32; bfloat16 (native and openvino); or auto: bfloat16 by native where the processor has
  /// instructions for it and the Bundle's report shows that it answers alike, else float32.
  std::string precision = "auto";
  std::size_t threads = 0;     ///< Of the network; 0: one a usable core.
  std::size_t batch_size = 0;  ///< Images of one run; 0: 2 for each of several threads.
};

/// What preprocessing makes of an image: float32 [channels, height, width].
struct InputSize {
  std::size_t channels = 0, height = 0, width = 0;

  std::size_t count() const noexcept { return channels * height * width; }
};

/// The back ends that the library was built with, the preferred one first: "native", "openvino",
/// "onnxruntime".
DENSEPATH_API std::vector<std::string> backend_names();

/// Why the back end "native" cannot run on this processor, a sentence that says what is needed and
/// what is there; empty if it can, or if it was not built in. "auto" then takes another one.
DENSEPATH_API std::string processor_obstacle();

/// A network ready to answer. Not copied.
class DENSEPATH_API Predictor {
 public:
  using Next = std::function<std::optional<Source>()>;
  using Take = std::function<bool(const Prediction&)>;
  using Waiting = std::function<bool(std::chrono::milliseconds)>;

  /// Opens and verifies the Bundle, a folder, and loads its network. Everything is read now: the
  /// folder may change or go afterwards.
  ///
  /// Throws UsageError (an unknown back end or precision; one that this build or processor has
  /// not), BundleError (the Bundle is not whole, or has no format that is read), Error (the runtime
  /// cannot load it).
  explicit Predictor(const std::string& bundle, const Settings& settings = {});
  ~Predictor();
  Predictor(Predictor&&) noexcept;  ///< What was moved from may only be assigned to or destroyed.
  Predictor& operator=(Predictor&&) noexcept;

  /// The answer for one file, JPEG or PNG (or of values: `reads_values`); its `error` says why when
  /// the file cannot be read.
  ///
  /// `top_k`: how many classes it has, or all if there are fewer. Throws UsageError (it is 0),
  /// Error (the runtime cannot run the network).
  Prediction predict(const std::string& path, std::size_t top_k = 5);

  /// The answer for pixels. Throws as above, and UsageError when they are not what the Bundle
  /// takes: other channels, or not height · width · channels values.
  Prediction predict(const Image& image, std::size_t top_k = 5);

  /// The answer for the bytes of a JPEG or PNG file in memory, such as an upload or a camera's
  /// frame; its `error` says why when they are no image. They are read until the call ends, and not
  /// kept. Throws as for a file, and UsageError when `bytes` is null.
  Prediction predict_bytes(const void* bytes, std::size_t size, std::size_t top_k = 5);

  /// One answer for each image that `next` gives until it gives none, to `take`, in order. Both are
  /// called in the caller's thread; reading and network use all cores, at most two batches a stream
  /// ahead. Ends early when `take` returns false. What `next` or `take` throws comes out again.
  ///
  /// `waiting` is for images that come in their own time, from a pipe or a camera: it says whether
  /// `next` would return at once, and waits so long for that. Each image is then answered as soon
  /// as no other is there; without `waiting` answers may wait for a batch to be full.
  void predict(const Next& next, const Take& take, std::size_t top_k = 5,
               const Waiting& waiting = nullptr);

  /// The names of the classes, in the order of the network's outputs; never empty.
  const std::vector<std::string>& labels() const noexcept;

  /// The network's name in the catalogue: "densenet121".
  const std::string& model_name() const noexcept;

  /// What each image is resized to, and its channels: 3 (RGB), 1 (gray), or up to 16.
  InputSize input_size() const noexcept;

  /// Whether files are read for their values (16-bit PNG and TIFF, DICOM, .npy): the Bundle has an
  /// `intensity`, or takes other channels than 1 and 3.
  bool reads_values() const noexcept;

  /// Whether each class has a score of its own, so that they need not add up to 1.
  bool is_multi_label() const noexcept;

  /// The settings in use: what was left open is decided. `precision` may be int8, which a Bundle
  /// is.
  const Settings& settings() const noexcept;

  /// Why that precision, where it was left open and there was a choice; else empty.
  const std::string& precision_reason() const noexcept;

 private:
  friend struct Inside;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace densepath
