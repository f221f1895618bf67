#include "benchmark.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "flow.hpp"
#include "inside.hpp"

namespace densepath {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr size_t BATCH_SIZES[] = {1, 4, 8};
constexpr size_t LARGEST_BATCH = 8;
constexpr int WARM_UPS = 3;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rounded(double value) { return std::round(value * 1000) / 1000; }

// The value below which `share` of the sorted values lie, interpolated between neighbours.
double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Inputs of a batch of 8, from the first images that can be read, repeated.
std::vector<float> real_inputs(Predictor& predictor, const std::vector<Source>& sources) {
  const ReadAs read_as = Inside::read_as(predictor);
  const auto fitter = Inside::backend(predictor).make_fitter();
  std::vector<std::vector<float>> inputs;
  for (const Source& source : sources) {
    Ready ready = read_one(source, *fitter, read_as);
    if (!ready.error) inputs.push_back(std::move(ready.input));
    if (inputs.size() == LARGEST_BATCH) break;
  }
  if (inputs.empty()) throw Error("none of the images can be read; name some to measure with.");
  std::vector<float> batch;
  for (size_t i = 0; i < LARGEST_BATCH; ++i) {
    const std::vector<float>& input = inputs[i % inputs.size()];
    batch.insert(batch.end(), input.begin(), input.end());
  }
  return batch;
}

// Milliseconds of each run of one batch size, sorted.
std::vector<double> time_runs(Backend& backend, const std::vector<float>& inputs, size_t count,
                              size_t repeats) {
  const auto end = inputs.begin() + static_cast<ptrdiff_t>(inputs.size() / LARGEST_BATCH * count);
  const std::vector<float> batch(inputs.begin(), end);
  for (int i = 0; i < WARM_UPS; ++i) backend.run(batch, count);
  std::vector<double> times_ms;
  for (size_t i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    backend.run(batch, count);
    times_ms.push_back(seconds_since(start) * 1000);
  }
  std::sort(times_ms.begin(), times_ms.end());
  return times_ms;
}

Json latency(Backend& backend, const std::vector<float>& inputs, size_t count, size_t repeats) {
  const std::vector<double> times_ms = time_runs(backend, inputs, count, repeats);
  return {{"batch_size", count},
          {"median", rounded(percentile(times_ms, 0.5))},
          {"p10", rounded(percentile(times_ms, 0.1))},
          {"p90", rounded(percentile(times_ms, 0.9))},
          {"p99", rounded(percentile(times_ms, 0.99))}};
}

}  // namespace

std::string benchmark(Predictor& predictor, const Predictor::Next& next, size_t repeats,
                      size_t top_k) {
  std::vector<Source> sources;
  while (auto source = next()) sources.push_back(std::move(*source));
  const std::vector<float> inputs = real_inputs(predictor, sources);
  Json latencies = Json::array();
  for (const size_t count : BATCH_SIZES) {
    latencies.push_back(latency(Inside::backend(predictor), inputs, count, repeats));
  }

  size_t at = 0, answered = 0;
  const auto start = Clock::now();
  predictor.predict(
      [&]() { return at < sources.size() ? std::optional<Source>(sources[at++]) : std::nullopt; },
      [&](const Prediction& prediction) {
        if (!prediction.error) ++answered;
        return true;
      },
      top_k);
  const double seconds = seconds_since(start);
  const Settings& settings = predictor.settings();
  const Json report = {{"backend", Inside::backend(predictor).description()},
                       {"model", predictor.model_name()},
                       {"precision", settings.precision},
                       {"threads", settings.threads},
                       {"batch_size", settings.batch_size},
                       {"repeats", repeats},
                       {"latency_ms", latencies},
                       {"images", sources.size()},
                       {"answered", answered},
                       {"seconds", rounded(seconds)},
                       {"images_per_second",
                        rounded(static_cast<double>(sources.size()) / std::max(seconds, 1e-9))}};
  return report.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace densepath
