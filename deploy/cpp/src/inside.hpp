// A Predictor's back end, for the programs of this folder; the public header does not show it.
#pragma once

#include "backend.hpp"
#include "densepath/predictor.hpp"
#include "intensity.hpp"

namespace densepath {

struct Inside {
  static Backend& backend(Predictor& predictor);
  static ReadAs read_as(const Predictor& predictor);
};

}  // namespace densepath
