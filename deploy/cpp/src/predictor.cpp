#include "densepath/predictor.hpp"

#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "backend.hpp"
#include "bundle.hpp"
#include "decode.hpp"
#include "flow.hpp"
#include "inside.hpp"
#include "precision.hpp"
#include "predictions.hpp"

namespace densepath {
namespace {

constexpr char UNNAMED[] = "image";
constexpr size_t MOST_CHANNELS = 16;  // As files are read with.

void check_settings(const Settings& settings) {
  const std::string& precision = settings.precision;
  if (precision != "auto" && precision != "float32" && precision != "bfloat16") {
    throw UsageError("unknown precision '" + precision + "'. Choices: auto, bfloat16, float32.");
  }
}

void check_top_k(size_t top_k) {
  if (top_k < 1) throw UsageError("top_k is 0; it must be at least 1.");
}

}  // namespace

struct Predictor::Parts {
  Bundle bundle;
  Settings settings;
  std::string precision_reason;
  std::unique_ptr<Backend> backend;
  std::mutex running;  // Only one single image at a time has all of the network's threads.
  std::mutex mutex;    // Of `idle`: a caller's thread takes one for single images.
  std::vector<std::unique_ptr<Fitter>> idle;

  using Run = std::vector<float> (Backend::*)(const std::vector<float>&, size_t);

  // What `use` makes with a fitter that no other thread has meanwhile.
  template <typename Use>
  auto with_fitter(Use use) {
    std::unique_ptr<Fitter> fitter;
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        fitter = std::move(idle.back());
        idle.pop_back();
      }
    }
    if (!fitter) fitter = backend->make_fitter();
    auto made = use(*fitter);
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(fitter));
    return made;
  }

  // The answers of one batch, failures in their places.
  std::vector<Prediction> answer(const std::vector<Ready>& batch, size_t top_k, Run run) {
    std::vector<float> inputs;
    inputs.reserve(batch.size() * bundle.input_size.count());
    size_t count = 0;
    for (const Ready& ready : batch) {
      if (ready.error) continue;
      check_size(ready);
      inputs.insert(inputs.end(), ready.input.begin(), ready.input.end());
      ++count;
    }
    const std::vector<float> logits = (*backend.*run)(inputs, count);
    std::vector<Prediction> answers;
    const float* row = logits.data();
    for (const Ready& ready : batch) {
      if (ready.error) {
        answers.push_back(failed(ready.path, *ready.error));
        continue;
      }
      answers.push_back(densepath::answer(ready.path, row, bundle.labels, top_k, bundle.multi_label,
                                          bundle.decisions));
      row += bundle.labels.size();
    }
    return answers;
  }

  void check_size(const Ready& ready) const {
    if (ready.input.size() != bundle.input_size.count()) {
      throw Error(bundle.folder + ": preprocessing gives " + std::to_string(ready.input.size()) +
                  " values, but the manifest says " + std::to_string(bundle.input_size.count()) +
                  ".");
    }
  }

  // The answer for one image that was read, which has the whole machine.
  Prediction answer_one(Ready ready, size_t top_k) {
    std::vector<Ready> batch;
    batch.push_back(std::move(ready));
    const std::lock_guard lock(running);
    return answer(batch, top_k, &Backend::run).front();
  }

  Prediction answer_source(const Source& source, size_t top_k) {
    return answer_one(with_fitter([&](Fitter& fitter) {
                        return read_one(source, fitter, bundle.preprocess.read_as());
                      }),
                      top_k);
  }

  // The answer for what `input` makes of an image in memory.
  Prediction answer_unnamed(const std::function<std::vector<float>(Fitter&)>& input, size_t top_k) {
    return answer_one(with_fitter([&](Fitter& fitter) {
                        return ready_or_why(UNNAMED, [&] { return input(fitter); });
                      }),
                      top_k);
  }
};

Predictor::Predictor(const std::string& bundle, const Settings& settings)
    : parts_(std::make_unique<Parts>()) {
  check_settings(settings);
  parts_->bundle = Bundle::open(bundle);
  const size_t channels = parts_->bundle.input_size.channels;
  if (channels < 1 || channels > MOST_CHANNELS) {
    throw BundleError(bundle + " takes images of " + std::to_string(channels) +
                      " channels; files are read with 1 to 16.");
  }
  parts_->settings = settings;
  Chosen chosen = choose(settings, parts_->bundle);
  parts_->settings.backend = std::move(chosen.backend);
  parts_->settings.precision = std::move(chosen.precision);
  parts_->precision_reason = std::move(chosen.precision_reason);
  parts_->settings.threads = num_threads(settings);
  parts_->settings.batch_size = batch_size(settings);
  parts_->backend = make_backend(parts_->bundle, parts_->settings);
  parts_->idle.push_back(parts_->backend->make_fitter());
}

Predictor::~Predictor() = default;
Predictor::Predictor(Predictor&&) noexcept = default;
Predictor& Predictor::operator=(Predictor&&) noexcept = default;

Prediction Predictor::predict(const std::string& path, size_t top_k) {
  check_top_k(top_k);
  return parts_->answer_source({path}, top_k);
}

Prediction Predictor::predict_bytes(const void* bytes, size_t size, size_t top_k) {
  check_top_k(top_k);
  if (bytes == nullptr) throw UsageError("the image's bytes are a null pointer.");
  const Bytes file(static_cast<const uint8_t*>(bytes), size);
  const ReadAs read_as = parts_->bundle.preprocess.read_as();
  return parts_->answer_unnamed(
      [&](Fitter& fitter) { return fit(open_image_bytes(file, read_as), fitter); }, top_k);
}

Prediction Predictor::predict(const Image& image, size_t top_k) {
  check_top_k(top_k);
  const size_t channels = parts_->bundle.input_size.channels;
  const size_t count = image.height * image.width * image.channels;
  if (image.channels != channels || count == 0 || image.pixels.size() != count) {
    throw UsageError(
        "the image is uint8 [" + std::to_string(image.height) + ", " + std::to_string(image.width) +
        ", " + std::to_string(image.channels) + "] of " + std::to_string(image.pixels.size()) +
        " bytes; this bundle takes uint8 [height, width, " + std::to_string(channels) + "].");
  }
  return parts_->answer_unnamed([&](Fitter& fitter) { return fit(image, fitter); }, top_k);
}

void Predictor::predict(const Next& next, const Take& take, size_t top_k, const Waiting& waiting) {
  check_top_k(top_k);
  auto first = waiting ? std::nullopt : next();
  auto second = first ? next() : std::nullopt;
  const ReadAs read_as = parts_->bundle.preprocess.read_as();
  if (!first && !waiting) return;
  if (first && !second) {
    take(parts_->answer_source(*first, top_k));
    return;
  }
  std::deque<Source> begun;
  if (first) begun = {*first, *second};
  const auto rest = [&]() -> std::optional<Source> {
    if (begun.empty()) return next();
    Source source = std::move(begun.front());
    begun.pop_front();
    return source;
  };
  const auto answer = [&](const std::vector<Ready>& batch, bool alone) {
    return parts_->answer(batch, top_k, alone ? &Backend::run : &Backend::run_share);
  };
  const Settings& settings = parts_->settings;
  Flow flow({rest, waiting}, answer, *parts_->backend,
            {read_as, batch_size(settings), num_threads(settings)});
  for (auto answers = flow.pop(); !answers.empty(); answers = flow.pop()) {
    for (const Prediction& prediction : answers) {
      if (!take(prediction)) return;
    }
  }
}

const std::vector<std::string>& Predictor::labels() const noexcept { return parts_->bundle.labels; }
const std::string& Predictor::model_name() const noexcept { return parts_->bundle.model_name; }
InputSize Predictor::input_size() const noexcept { return parts_->bundle.input_size; }
bool Predictor::reads_values() const noexcept {
  return parts_->bundle.preprocess.read_as().by_value();
}
bool Predictor::is_multi_label() const noexcept { return parts_->bundle.multi_label; }
const Settings& Predictor::settings() const noexcept { return parts_->settings; }
const std::string& Predictor::precision_reason() const noexcept { return parts_->precision_reason; }

Backend& Inside::backend(Predictor& predictor) { return *predictor.parts_->backend; }
ReadAs Inside::read_as(const Predictor& predictor) {
  return predictor.parts_->bundle.preprocess.read_as();
}

}  // namespace densepath
