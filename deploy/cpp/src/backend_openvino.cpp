// OpenVINO: model.xml and preprocess.xml on the CPU.
#include <algorithm>
#include <mutex>
#include <openvino/openvino.hpp>
#include <utility>

#include "backend.hpp"
#include "spread.hpp"

namespace densepath {
namespace {

constexpr char DEVICE[] = "CPU";

// A graph from verified bytes. Its weights stay in `weights`, which must outlive it.
std::shared_ptr<ov::Model> read_graph(ov::Core& core, const Contents& xml, Contents& weights) {
  // OpenVINO takes no empty tensor; a graph without constants has an empty .bin.
  if (weights.empty()) weights.push_back(0);
  const ov::Tensor constants(ov::element::u8, {weights.size()}, weights.data());
  return core.read_model(std::string(xml.begin(), xml.end()), constants);
}

// A compiled graph whose idle requests are taken again.
class Requests {
 public:
  explicit Requests(ov::CompiledModel graph) : graph_(std::move(graph)) {}

  ov::InferRequest take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return graph_.create_infer_request();
    ov::InferRequest request = std::move(idle_.back());
    idle_.pop_back();
    return request;
  }

  void give_back(ov::InferRequest request) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(request));
  }

 private:
  ov::CompiledModel graph_;
  std::mutex mutex_;
  std::vector<ov::InferRequest> idle_;
};

class OpenVinoFitter : public Fitter {
 public:
  explicit OpenVinoFitter(ov::InferRequest request) : request_(std::move(request)) {}

  std::vector<float> fit(const Image& image) override {
    try {
      // The runtime does not write into its input.
      auto* pixels = const_cast<uint8_t*>(image.pixels.data());
      request_.set_input_tensor(
          ov::Tensor(ov::element::u8, {image.height, image.width, image.channels}, pixels));
      request_.infer();
      const ov::Tensor images = request_.get_tensor("images");
      return {images.data<float>(), images.data<float>() + images.get_size()};
    } catch (const ov::Exception& error) {
      runtime_error("OpenVINO cannot preprocess an image", error);
    }
  }

 private:
  ov::InferRequest request_;
};

class OpenVino : public Backend {
 public:
  OpenVino(const Bundle& bundle, const Settings& settings)
      : contents_(bundle.read("openvino")),
        size_(bundle.input_size),
        num_classes_(bundle.labels.size()),
        threads_(static_cast<int>(num_threads(settings))) {
    check_precision(settings);
    const BundleFormat& parts = bundle.formats.at("openvino");
    const std::string& preprocess = bundle.preprocess_graph("openvino");
    const int readers = static_cast<int>(num_readers(num_threads(settings)));
    try {
      model_ = read_graph(core_, contents_.at(parts.model), weights(parts.model));
      // Each reading thread computes its own image.
      preprocess_ =
          core_.compile_model(read_graph(core_, contents_.at(preprocess), weights(preprocess)),
                              DEVICE, ov::num_streams(readers), ov::inference_num_threads(readers),
                              ov::hint::inference_precision(ov::element::f32));
      const Layout layout = {num_threads(settings), size_.count(), bundle.labels.size()};
      spread_ = std::make_unique<Spread>(layout, compile(threads_), [this] { return compile(1); });
    } catch (const ov::Exception& error) {
      runtime_error("OpenVINO cannot load " + bundle.folder, error);
    }
  }

  std::unique_ptr<Fitter> make_fitter() override {
    try {
      return std::make_unique<OpenVinoFitter>(preprocess_.create_infer_request());
    } catch (const ov::Exception& error) {
      runtime_error("OpenVINO cannot preprocess", error);
    }
  }

  std::vector<float> run(const std::vector<float>& images, size_t count) override {
    try {
      return spread_->run(images, count);
    } catch (const ov::Exception& error) {
      runtime_error("OpenVINO cannot run the model", error);
    }
  }

  std::vector<float> run_share(const std::vector<float>& images, size_t count) override {
    try {
      return spread_->run_share(images, count);
    } catch (const ov::Exception& error) {
      runtime_error("OpenVINO cannot run the model", error);
    }
  }

  std::string description() const override {
    const std::string build = ov::get_openvino_version().buildNumber;
    return "openvino " + build.substr(0, build.find('-'));
  }

 private:
  // The .bin beside the .xml.
  Contents& weights(const std::string& xml) {
    return contents_[xml.substr(0, xml.rfind('.')) + ".bin"];
  }

  // Named always: by itself OpenVINO computes float32 graphs in bfloat16 where that is quicker.
  void check_precision(const Settings& settings) {
    type_ = settings.precision == "bfloat16" ? ov::element::bf16 : ov::element::f32;
    const auto can = core_.get_property(DEVICE, ov::device::capabilities);
    if (type_ == ov::element::bf16 && std::count(can.begin(), can.end(), "BF16") == 0) {
      throw UsageError("this processor has no bfloat16 arithmetic; use --precision float32.");
    }
  }

  // The model on all threads, which form so many streams.
  RunPart compile(int streams) {
    const auto requests = std::make_shared<Requests>(core_.compile_model(
        model_, DEVICE, ov::num_streams(streams), ov::inference_num_threads(threads_),
        ov::hint::inference_precision(type_)));
    return [requests, size = size_, num_classes = num_classes_](const float* images, size_t count,
                                                                float* logits) {
      ov::InferRequest request = requests->take();
      const ov::Shape shape = {count, size.channels, size.height, size.width};
      request.set_input_tensor(ov::Tensor(ov::element::f32, shape, const_cast<float*>(images)));
      request.infer();
      const ov::Tensor output = request.get_output_tensor();
      copy_logits(output.data<float>(), output.get_size(), count * num_classes, logits);
      requests->give_back(std::move(request));
    };
  }

  std::map<std::string, Contents> contents_;  // The graphs read their weights here.
  InputSize size_;
  size_t num_classes_;
  int threads_;
  ov::element::Type type_;
  ov::Core core_;
  std::shared_ptr<ov::Model> model_;
  ov::CompiledModel preprocess_;
  std::unique_ptr<Spread> spread_;
};

}  // namespace

std::unique_ptr<Backend> make_openvino(const Bundle& bundle, const Settings& settings) {
  try {
    return std::make_unique<OpenVino>(bundle, settings);
  } catch (const ov::Exception& error) {
    runtime_error("OpenVINO cannot be started", error);
  }
}

}  // namespace densepath
