// OpenVINO: model.xml and preprocess.xml on the CPU.
#include <algorithm>
#include <openvino/openvino.hpp>

#include "backend.hpp"

namespace densepath {
namespace {

/// A graph from verified bytes. Its weights stay in `weights`, which must outlive it.
std::shared_ptr<ov::Model> read_graph(ov::Core& core, const Contents& xml, Contents& weights) {
  // OpenVINO takes no empty tensor; a graph without constants has an empty .bin.
  if (weights.empty()) weights.push_back(0);
  const ov::Tensor constants(ov::element::u8, {weights.size()}, weights.data());
  return core.read_model(std::string(xml.begin(), xml.end()), constants);
}

/// Runtime errors as ours: in one line, without the runtime's source lines.
[[noreturn]] void fail(const std::string& what, const std::exception& error) {
  std::string reason = error.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  throw Error("OpenVINO " + what + ": " + reason);
}

class OpenVinoFitter : public Fitter {
 public:
  explicit OpenVinoFitter(ov::InferRequest request) : request_(std::move(request)) {}

  std::vector<float> fit(const Image& image) override {
    try {
      // The runtime does not write into its input.
      auto* pixels = const_cast<std::uint8_t*>(image.pixels.data());
      request_.set_input_tensor(ov::Tensor(
          ov::element::u8, {image.height, image.width, image.channels}, pixels));
      request_.infer();
      const ov::Tensor images = request_.get_tensor("images");
      const float* values = images.data<float>();
      return {values, values + images.get_size()};
    } catch (const ov::Exception& error) {
      fail("cannot preprocess an image", error);
    }
  }

 private:
  ov::InferRequest request_;
};

class OpenVino : public Backend {
 public:
  OpenVino(const Bundle& bundle, const Settings& settings)
      : contents_(bundle.read("openvino")), size_(bundle.input_size) {
    const BundleFormat& parts = bundle.formats.at("openvino");
    try {
      const int threads = static_cast<int>(num_threads(settings));
      const int readers = static_cast<int>(num_readers());
      const auto type = settings.precision == "bfloat16" ? ov::element::bf16 : ov::element::f32;
      model_ = core_.compile_model(
          read_graph(core_, contents_.at(parts.model), weights(parts.model)), "CPU",
          ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
          ov::inference_num_threads(threads), ov::hint::inference_precision(type));
      request_ = model_.create_infer_request();
      // Each reading thread computes its own image.
      preprocess_ = core_.compile_model(
          read_graph(core_, contents_.at(parts.preprocess), weights(parts.preprocess)), "CPU",
          ov::num_streams(readers), ov::inference_num_threads(readers),
          ov::hint::inference_precision(ov::element::f32));
    } catch (const ov::Exception& error) {
      fail("cannot load " + bundle.folder, error);
    }
  }

  std::unique_ptr<Fitter> make_fitter() override {
    return std::make_unique<OpenVinoFitter>(preprocess_.create_infer_request());
  }

  std::vector<float> run(const std::vector<float>& images, std::size_t count) override {
    try {
      auto* values = const_cast<float*>(images.data());
      const ov::Shape shape = {count, size_.channels, size_.height, size_.width};
      request_.set_input_tensor(ov::Tensor(ov::element::f32, shape, values));
      request_.infer();
      const ov::Tensor logits = request_.get_output_tensor();
      return {logits.data<float>(), logits.data<float>() + logits.get_size()};
    } catch (const ov::Exception& error) {
      fail("cannot run the model", error);
    }
  }

  std::string description() const override {
    const std::string build = ov::get_openvino_version().buildNumber;
    return "openvino " + build.substr(0, build.find('-'));
  }

 private:
  /// The .bin beside the .xml.
  Contents& weights(const std::string& xml) {
    return contents_[xml.substr(0, xml.rfind('.')) + ".bin"];
  }

  std::map<std::string, Contents> contents_;  // The compiled graphs read their weights here.
  InputSize size_;
  ov::Core core_;
  ov::CompiledModel model_, preprocess_;
  ov::InferRequest request_;
};

}  // namespace

std::unique_ptr<Backend> make_openvino(const Bundle& bundle, const Settings& settings) {
  return std::make_unique<OpenVino>(bundle, settings);
}

}  // namespace densepath
