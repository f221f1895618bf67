// ONNX Runtime: model.onnx and preprocess.onnx on the CPU.
//
// The C API is versioned: headers of an older release ask a newer library for their own table of
// functions, so that the library may be newer than the headers.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>

#include "backend.hpp"

namespace densepath {
namespace {

[[noreturn]] void fail(const std::string& what, const std::exception& error) {
  std::string reason = error.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  throw Error("ONNX Runtime " + what + ": " + reason);
}

std::int64_t as_dimension(std::size_t size) { return static_cast<std::int64_t>(size); }

Ort::Session load(const Ort::Env& env, const Contents& onnx, std::size_t threads) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(static_cast<int>(threads));
  options.SetInterOpNumThreads(1);
  options.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_ALL);
  return {env, onnx.data(), onnx.size(), options};
}

/// One input in, one output out: float32 values of whatever shape.
std::vector<float> compute(Ort::Session& session, const char* input, const char* output,
                           const Ort::Value& value) {
  const auto outputs = session.Run(Ort::RunOptions{nullptr}, &input, &value, 1, &output, 1);
  const float* values = outputs[0].GetTensorData<float>();
  return {values, values + outputs[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}

Ort::MemoryInfo cpu_memory() {
  return Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
}

class OnnxRuntimeFitter : public Fitter {
 public:
  explicit OnnxRuntimeFitter(Ort::Session& session) : session_(session) {}

  std::vector<float> fit(const Image& image) override {
    try {
      const std::array<std::int64_t, 3> shape = {
          as_dimension(image.height), as_dimension(image.width), as_dimension(image.channels)};
      // The runtime does not write into its input.
      auto* pixels = const_cast<std::uint8_t*>(image.pixels.data());
      const auto value = Ort::Value::CreateTensor<std::uint8_t>(
          memory_, pixels, image.pixels.size(), shape.data(), shape.size());
      return compute(session_, "image", "images", value);
    } catch (const Ort::Exception& error) {
      fail("cannot preprocess an image", error);
    }
  }

 private:
  Ort::Session& session_;  // Running it from several threads is safe.
  Ort::MemoryInfo memory_ = cpu_memory();
};

class OnnxRuntime : public Backend {
 public:
  OnnxRuntime(const Bundle& bundle, const Settings& settings)
      : input_(bundle.input_name), output_(bundle.output_name), size_(bundle.input_size) {
    if (settings.precision != "float32") {
      throw UsageError("the back end onnxruntime computes in float32, not in " +
                       settings.precision + "; --backend openvino can.");
    }
    const auto contents = bundle.read("onnx");
    const BundleFormat& parts = bundle.formats.at("onnx");
    try {
      model_ = load(env_, contents.at(parts.model), num_threads(settings));
      preprocess_ = load(env_, contents.at(parts.preprocess), 1);
    } catch (const Ort::Exception& error) {
      fail("cannot load " + bundle.folder, error);
    }
  }

  std::unique_ptr<Fitter> make_fitter() override {
    return std::make_unique<OnnxRuntimeFitter>(preprocess_);
  }

  std::vector<float> run(const std::vector<float>& images, std::size_t count) override {
    try {
      const std::array<std::int64_t, 4> shape = {
          as_dimension(count), as_dimension(size_.channels), as_dimension(size_.height),
          as_dimension(size_.width)};
      const auto value = Ort::Value::CreateTensor<float>(
          memory_, const_cast<float*>(images.data()), images.size(), shape.data(), shape.size());
      return compute(model_, input_.c_str(), output_.c_str(), value);
    } catch (const Ort::Exception& error) {
      fail("cannot run the model", error);
    }
  }

  std::string description() const override { return "onnxruntime " + Ort::GetVersionString(); }

 private:
  std::string input_, output_;
  InputSize size_;
  Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "densepath"};
  Ort::MemoryInfo memory_ = cpu_memory();
  Ort::Session model_{nullptr}, preprocess_{nullptr};
};

}  // namespace

std::unique_ptr<Backend> make_onnxruntime(const Bundle& bundle, const Settings& settings) {
  return std::make_unique<OnnxRuntime>(bundle, settings);
}

}  // namespace densepath
