// ONNX Runtime: model.onnx and preprocess.onnx on the CPU.
//
// The C API is versioned: headers of an older release ask a newer library for their own table of
// functions, so that the library may be newer than the headers.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "backend.hpp"
#ifdef DENSEPATH_NATIVE
#include "processor.hpp"
#endif
#include "spread.hpp"
#include "text.hpp"

namespace densepath {
namespace {

int64_t as_dimension(size_t size) { return static_cast<int64_t>(size); }

// By itself ONNX Runtime, from 1.29 on, keeps an id and records of its use in the home, and sends
// them. It reads the switch when its environment is made; DisableTelemetryEvents comes too late. As
// in privacy.py, whoever has set the switch to a no has chosen to send.
constexpr const char* SWITCH = "ORT_DISABLE_TELEMETRY";
constexpr std::array<std::string_view, 4> REFUSALS = {"0", "false", "no", "off"};

void switch_off_telemetry() {
  const char* chosen = std::getenv(SWITCH);
  const std::string value = lower(chosen ? chosen : "");
  if (std::find(REFUSALS.begin(), REFUSALS.end(), value) != REFUSALS.end()) return;
#ifdef _WIN32
  _putenv_s(SWITCH, "1");
#else
  ::setenv(SWITCH, "1", 1);
#endif
}

Ort::Env silent_environment() {
  switch_off_telemetry();
  return {ORT_LOGGING_LEVEL_FATAL, "densepath"};
}

// As Python's engines/onnxruntime.py: right sums in INT8 on x86 processors without VNNI, whose
// quicker kernels saturate. True, and slower, where nothing here asks the processor.
bool needs_exact_int8() {
#ifdef DENSEPATH_NATIVE
  return !has_vnni();
#else
  return true;
#endif
}

Ort::Session load(const Ort::Env& env, const Contents& onnx, size_t threads) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(static_cast<int>(threads));
  options.SetInterOpNumThreads(1);
  // A thread that waits for others would otherwise keep its core from those who read images.
  options.AddConfigEntry("session.intra_op.allow_spinning", "0");
  if (needs_exact_int8()) options.AddConfigEntry("session.x64quantprecision", "1");
  return {env, onnx.data(), onnx.size(), options};
}

Ort::MemoryInfo cpu_memory() {
  return Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
}

// One input in, one output out.
Ort::Value compute(Ort::Session& session, const std::string& input, const std::string& output,
                   const Ort::Value& value) {
  const char* input_name = input.c_str();
  const char* output_name = output.c_str();
  auto outputs = session.Run(Ort::RunOptions{nullptr}, &input_name, &value, 1, &output_name, 1);
  return std::move(outputs[0]);
}

size_t num_values(const Ort::Value& value) {
  return value.GetTensorTypeAndShapeInfo().GetElementCount();
}

class OnnxRuntimeFitter : public Fitter {
 public:
  explicit OnnxRuntimeFitter(Ort::Session& session) : session_(session) {}

  std::vector<float> fit(const Image& image) override {
    try {
      const std::array<int64_t, 3> shape = {as_dimension(image.height), as_dimension(image.width),
                                            as_dimension(image.channels)};
      // The runtime does not write into its input.
      auto* pixels = const_cast<uint8_t*>(image.pixels.data());
      const auto value = Ort::Value::CreateTensor<uint8_t>(memory_, pixels, image.pixels.size(),
                                                           shape.data(), shape.size());
      const Ort::Value images = compute(session_, "image", "images", value);
      const float* values = images.GetTensorData<float>();
      return {values, values + num_values(images)};
    } catch (const Ort::Exception& error) {
      runtime_error("ONNX Runtime cannot preprocess an image", error);
    }
  }

 private:
  Ort::Session& session_;  // Running it from several threads is safe.
  Ort::MemoryInfo memory_ = cpu_memory();
};

class OnnxRuntime : public Backend {
 public:
  OnnxRuntime(const Bundle& bundle, const Settings& settings)
      : input_(bundle.input_name),
        output_(bundle.output_name),
        size_(bundle.input_size),
        num_classes_(bundle.labels.size()) {
    auto contents = bundle.read("onnx");
    const BundleFormat& parts = bundle.formats.at("onnx");
    model_ = std::move(contents.at(parts.model));
    const size_t threads = num_threads(settings);
    try {
      preprocess_ = load(env_, contents.at(bundle.preprocess_graph("onnx")), 1);
      const Layout layout = {threads, size_.count(), bundle.labels.size()};
      spread_ = std::make_unique<Spread>(layout, compile(1),
                                         [this, threads] { return compile(threads); });
    } catch (const Ort::Exception& error) {
      runtime_error("ONNX Runtime cannot load " + bundle.folder, error);
    }
  }

  std::unique_ptr<Fitter> make_fitter() override {
    return std::make_unique<OnnxRuntimeFitter>(preprocess_);
  }

  std::vector<float> run(const std::vector<float>& images, size_t count) override {
    try {
      return spread_->run(images, count);
    } catch (const Ort::Exception& error) {
      runtime_error("ONNX Runtime cannot run the model", error);
    }
  }

  std::vector<float> run_share(const std::vector<float>& images, size_t count) override {
    try {
      return spread_->run_share(images, count);
    } catch (const Ort::Exception& error) {
      runtime_error("ONNX Runtime cannot run the model", error);
    }
  }

  std::string description() const override { return "onnxruntime " + Ort::GetVersionString(); }

 private:
  // The model; each call uses so many threads.
  RunPart compile(size_t threads) {
    const auto session = std::make_shared<Ort::Session>(load(env_, model_, threads));
    return [this, session](const float* images, size_t count, float* logits) {
      const std::array<int64_t, 4> shape = {as_dimension(count), as_dimension(size_.channels),
                                            as_dimension(size_.height), as_dimension(size_.width)};
      const auto value = Ort::Value::CreateTensor<float>(
          memory_, const_cast<float*>(images), count * size_.count(), shape.data(), shape.size());
      const Ort::Value output = compute(*session, input_, output_, value);
      copy_logits(output.GetTensorData<float>(), num_values(output), count * num_classes_, logits);
    };
  }

  std::string input_, output_;
  InputSize size_;
  size_t num_classes_;
  Contents model_;
  Ort::Env env_ = silent_environment();
  Ort::MemoryInfo memory_ = cpu_memory();
  Ort::Session preprocess_{nullptr};
  std::unique_ptr<Spread> spread_;
};

}  // namespace

std::unique_ptr<Backend> make_onnxruntime(const Bundle& bundle, const Settings& settings) {
  try {
    return std::make_unique<OnnxRuntime>(bundle, settings);
  } catch (const Ort::Exception& error) {
    runtime_error("ONNX Runtime cannot be started", error);
  }
}

}  // namespace densepath
