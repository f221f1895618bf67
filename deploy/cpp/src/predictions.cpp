#include "predictions.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "text.hpp"

namespace densepath {
namespace {

constexpr char NOT_A_NUMBER[] = "the network's answer is not a number";

// 1 / (1 + exp(-x)) without overflow: exp(-log(1 + exp(-x))).
double sigmoid(double x) {
  return std::exp(-(std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)))));
}

template <typename Item, typename Write>
std::string json_list(const std::vector<Item>& items, Write write) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += ", ";
    text += write(items[i]);
  }
  return text += ']';
}

std::string to_json(const Prediction& prediction, bool ascii_only) {
  const auto quoted = [&](const std::string& text) { return json_string(text, ascii_only); };
  const std::string path = readable(prediction.path);
  std::string text = "{\"path\": " + quoted(path);
  if (path != prediction.path) text += ", \"path_base64\": " + quoted(base64(prediction.path));
  if (prediction.error) return text + ", \"error\": " + quoted(readable(*prediction.error)) + "}";
  const auto number = [](size_t value) { return std::to_string(value); };
  text += ", \"class_ids\": " + json_list(prediction.class_ids, number);
  text += ", \"labels\": " + json_list(prediction.labels, quoted);
  text += ", \"scores\": " + json_list(prediction.scores, json_score);
  if (prediction.positive_ids) {
    text += ", \"positive_ids\": " + json_list(*prediction.positive_ids, number);
    text += ", \"positive_labels\": " + json_list(prediction.positive_labels, quoted);
  }
  return text += '}';
}

}  // namespace

std::vector<double> probabilities(const float* logits, size_t num_classes, bool multi_label,
                                  std::optional<double> temperature) {
  std::vector<double> shares(logits, logits + num_classes);
  if (temperature) {
    for (double& share : shares) share /= *temperature;
  }
  if (multi_label) {
    std::transform(shares.begin(), shares.end(), shares.begin(), sigmoid);
    return shares;
  }
  const double largest = *std::max_element(shares.begin(), shares.end());
  for (double& share : shares) share = std::exp(share - largest);
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= total;
  return shares;
}

Prediction answer(const std::string& path, const float* logits,
                  const std::vector<std::string>& labels, size_t top_k, bool multi_label,
                  const Decisions& decisions) {
  const std::vector<double> shares =
      probabilities(logits, labels.size(), multi_label, decisions.temperature);
  const auto finite = [](double share) { return std::isfinite(share); };
  if (!std::all_of(shares.begin(), shares.end(), finite)) return failed(path, NOT_A_NUMBER);

  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t wanted = std::min(top_k, order.size());
  const size_t count = decisions.thresholds ? order.size() : wanted;
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(),
      [&](size_t a, size_t b) { return shares[a] != shares[b] ? shares[a] > shares[b] : a < b; });
  Prediction prediction;
  prediction.path = path;
  if (decisions.thresholds) {
    prediction.positive_ids.emplace();
    for (const size_t id : order) {
      if (!(shares[id] > decisions.thresholds->at(id))) continue;
      prediction.positive_ids->push_back(id);
      prediction.positive_labels.push_back(labels[id]);
    }
  }
  order.resize(wanted);
  prediction.class_ids = order;
  for (const size_t id : order) {
    prediction.labels.push_back(labels[id]);
    prediction.scores.push_back(shares[id]);
  }
  return prediction;
}

Prediction failed(const std::string& path, const std::string& error) {
  Prediction prediction;
  prediction.path = path;
  prediction.error = error;
  return prediction;
}

std::string to_json(const Prediction& prediction) {
  const std::string text = to_json(prediction, false);
  // As Python does: what a terminal cannot show is escaped, and the whole line with it.
  return is_printable(text) ? text : to_json(prediction, true);
}

}  // namespace densepath
