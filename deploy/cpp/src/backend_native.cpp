// Our own kernels: model.safetensors or model-int8.safetensors on the CPU, without a runtime.
//
// The only file that is compiled for the CPU's own instructions (CMakeLists.txt): it has all of
// the vectors.
#include <utility>

#include "backend.hpp"
#include "build.hpp"
#include "checkpoint.hpp"
#include "needs.hpp"
#include "preprocess.hpp"
#include "resize.hpp"
#include "session.hpp"

namespace densepath {
namespace {

Taps as_taps(const Weights& weights) {
  return {static_cast<int>(weights.first.size()), weights.taps, weights.first.data(),
          weights.weights.data()};
}

std::vector<uint8_t> resize_pixels(const uint8_t* image, size_t width, size_t channels,
                                   const Weights& rows, const Weights& columns, bool height_first) {
  const size_t count = rows.first.size() * columns.first.size() * channels;
  std::vector<uint8_t> made(count + SPARE);
  resize(image, static_cast<int>(width), static_cast<int>(channels), as_taps(rows),
         as_taps(columns), height_first, made.data());
  made.resize(count);
  return made;
}

class NativeFitter : public Fitter {
 public:
  explicit NativeFitter(const Preprocess& preprocess) : preprocess_(preprocess) {}

  std::vector<float> fit(const Image& image) override {
    return preprocess_image(preprocess_, image, resize_pixels);
  }

 private:
  Preprocess preprocess_;
};

constexpr char WRONG_BFLOAT16[] =
    "this processor's bfloat16 instructions do not give the product of the numbers; use "
    "--precision float32.";

Network build(const Bundle& bundle, const Settings& settings) {
  const std::string format = bundle.is_quantised() ? "native" : "torch";
  const auto contents = bundle.read(format);
  const std::string& name = bundle.formats.at(format).model;
  const Checkpoint checkpoint = read_checkpoint(contents.at(name), bundle.folder + ": " + name);
  const InputSize& size = bundle.input_size;
  const bool in_bfloat16 = settings.precision == "bfloat16";
  if (in_bfloat16 && !bfloat16_is_right()) throw UsageError(WRONG_BFLOAT16);
  try {
    Plan plan = plan_of(checkpoint.arch);
    plan.channels = checkpoint.channels;
    plan.height = static_cast<int>(size.height);
    plan.width = static_cast<int>(size.width);
    const Arithmetic arithmetic = in_bfloat16 ? Arithmetic::bfloat16 : Arithmetic::float32;
    Network network = Builder(plan, checkpoint.tensors, arithmetic).build();
    const auto least = static_cast<size_t>(plan.least_side());
    if (std::min(size.height, size.width) < least) {
      throw std::runtime_error("it needs images of at least " + std::to_string(least) + " × " +
                               std::to_string(least) + " pixels");
    }
    if (static_cast<size_t>(network.stem.channels) != size.channels) {
      throw std::runtime_error("it takes images of " + std::to_string(network.stem.channels) +
                               " channels, and preprocess gives " + std::to_string(size.channels));
    }
    return network;
  } catch (const std::runtime_error& error) {
    throw BundleError(bundle.folder + ": " + name + " makes no network: " + error.what() + ".");
  }
}

class Native : public Backend {
 public:
  Native(const Bundle& bundle, const Settings& settings)
      : preprocess_(bundle.preprocess),
        size_(bundle.input_size),
        num_classes_(bundle.labels.size()),
        threads_(static_cast<int>(num_threads(settings))),
        session_(build(bundle, settings)) {
    const auto found = static_cast<size_t>(session_.network().classes());
    if (found != num_classes_) {
      throw BundleError(bundle.folder + ": the model gives " + std::to_string(found) +
                        " logits, but the manifest says " + std::to_string(num_classes_) + ".");
    }
  }

  std::unique_ptr<Fitter> make_fitter() override {
    return std::make_unique<NativeFitter>(preprocess_);
  }

  std::vector<float> run(const std::vector<float>& images, size_t count) override {
    return run_on(images, count, threads_);
  }

  std::vector<float> run_share(const std::vector<float>& images, size_t count) override {
    return run_on(images, count, 1);
  }

  std::string description() const override { return "native"; }

 private:
  std::vector<float> run_on(const std::vector<float>& images, size_t count, int threads) {
    std::vector<float> logits(count * num_classes_);
    if (count > 0) {
      session_.run(images.data(), static_cast<int>(count), static_cast<int>(size_.height),
                   static_cast<int>(size_.width), logits.data(), threads);
    }
    return logits;
  }

  Preprocess preprocess_;
  InputSize size_;
  size_t num_classes_;
  int threads_;
  Session session_;
};

}  // namespace

std::string native_bfloat16_obstacle() {
  if (!HAS_BFLOAT16) return "this program was compiled without instructions for bfloat16";
  if (!bfloat16_is_right()) {
    return "this processor's bfloat16 does not give the product of the numbers";
  }
  return {};
}

bool native_has_amx() { return may_use_squares(); }

std::unique_ptr<Backend> make_native(const Bundle& bundle, const Settings& settings) {
  return std::make_unique<Native>(bundle, settings);
}

}  // namespace densepath
