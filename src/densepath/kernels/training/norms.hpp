// A BatchNorm's own vectors, [channels] each, in double; `training/blocks/norms.py` has the
// formulas.
//
// A network has a hundred of them: PyTorch's operations on vectors so short cost a sixth of a step.
#pragma once

#include <algorithm>
#include <cmath>

#include "maps.hpp"

namespace densepath {

// `Norms` that are being written.
struct NormsMade {
  float *scale, *shift, *centre;
};

// What a reader's BatchNorm holds of its step.
struct FactorsHeld {
  const double *mean, *inverse, *scale;
};

// What gradients are corrected by: constant + slope · x.
struct Corrections {
  double *constant, *slope;
};

inline void make_factors(const Statistics& found, int channels, const float* weight,
                         const float* bias, double eps, const NormsMade& norm, double* inverse,
                         double* scale) {
  for (int c = 0; c < channels; ++c) {
    inverse[c] = 1 / std::sqrt(found.variance[c] + eps);
    scale[c] = weight[c] * inverse[c];
    norm.scale[c] = static_cast<float>(scale[c]);
    norm.shift[c] = static_cast<float>(bias[c] - found.mean[c] * scale[c]);
    norm.centre[c] = static_cast<float>(found.mean[c]);
  }
}

// Running statistics, of which the variance is the unbiased one.
inline void follow(const Statistics& found, int channels, double pixels, double share, float* mean,
                   float* variance) {
  const double unbiased = pixels / std::max(pixels - 1, 1.0);
  const auto move = [&](float& moved, double towards) {
    moved = static_cast<float>(moved + share * (towards - moved));
  };
  for (int c = 0; c < channels; ++c) {
    move(mean[c], found.mean[c]);
    move(variance[c], found.variance[c] * unbiased);
  }
}

inline void norm_gradients(const Sums& sums, int channels, const double* inverse, float* weight,
                           float* bias) {
  for (int c = 0; c < channels; ++c) {
    weight[c] = static_cast<float>(sums.product[c] * inverse[c]);
    bias[c] = static_cast<float>(sums.gradient[c]);
  }
}

inline void add_correction(const Sums& sums, int channels, double pixels, const FactorsHeld& held,
                           const Corrections& into) {
  for (int c = 0; c < channels; ++c) {
    const double share = -held.scale[c] / pixels;
    const double slope = share * sums.product[c] * held.inverse[c] * held.inverse[c];
    into.constant[c] += share * sums.gradient[c] - slope * held.mean[c];
    into.slope[c] += slope;
  }
}

}  // namespace densepath
