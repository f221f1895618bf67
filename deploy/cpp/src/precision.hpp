// Which precision `auto` takes: bfloat16 only where it is quick here and was verified.
#pragma once

#include <string>

#include "backend.hpp"
#include "bundle.hpp"
#include "densepath/predictor.hpp"

namespace densepath {

// What was decided of `Settings`, and why that precision: empty where there was no choice.
struct Chosen {
  std::string backend, precision, precision_reason;
};

// As Python's `engines/choose.py`. Throws what `choose_backend` throws.
Chosen choose(const Settings& settings, const Bundle& bundle);

}  // namespace densepath
