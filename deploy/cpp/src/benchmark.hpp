// How fast a Bundle is on this machine.
#pragma once

#include <cstddef>
#include <string>

#include "densepath/predictor.hpp"

namespace densepath {

// One JSON line: the model's latency in ms for batches of 1, 4 and 8 (median and percentiles of
// `repeats` runs), and the images of `next` answered a second, from file to answer.
//
// Throws Error: none of the images can be read.
std::string benchmark(Predictor& predictor, const Predictor::Next& next, size_t repeats,
                      size_t top_k);

}  // namespace densepath
