// Answers: logits become named, sorted classes. The same arithmetic as predictions.py.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"

namespace densepath {

// What was chosen on validation images: above which score each class is a yes, and what logits are
// divided by before they become scores.
struct Decisions {
  std::optional<std::vector<double>> thresholds = std::nullopt;
  std::optional<double> temperature = std::nullopt;
};

// float32 logits [num_classes] → probabilities: softmax, or a sigmoid of each.
std::vector<double> probabilities(const float* logits, size_t num_classes, bool multi_label,
                                  std::optional<double> temperature = std::nullopt);

// The answer for one row of logits; of equal scores the lower class first. A row that holds NaN
// becomes a failure. With thresholds it says which classes are above theirs.
Prediction answer(const std::string& path, const float* logits,
                  const std::vector<std::string>& labels, size_t top_k, bool multi_label,
                  const Decisions& decisions = {});

// The answer for an image that could not be read.
Prediction failed(const std::string& path, const std::string& error);

}  // namespace densepath
