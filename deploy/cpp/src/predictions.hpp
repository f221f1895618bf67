// Answers: logits become named, sorted classes. The same arithmetic as predictions.py.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"

namespace densepath {

// float32 logits [num_classes] → probabilities: softmax, or a sigmoid of each.
std::vector<double> probabilities(const float* logits, size_t num_classes, bool multi_label);

// The answer for one row of logits; of equal scores the lower class first. A row that holds NaN
// becomes a failure.
Prediction answer(const std::string& path, const float* logits,
                  const std::vector<std::string>& labels, size_t top_k, bool multi_label);

// The answer for an image that could not be read.
Prediction failed(const std::string& path, const std::string& error);

}  // namespace densepath
