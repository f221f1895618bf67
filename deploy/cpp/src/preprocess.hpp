// uint8 image of any size → the network's input, as `densepath.Preprocess` computes it.
//
// For a back end without a runtime that could run the Bundle's preprocess graph. The bytes of the
// resized image are Python's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"
#include "intensity.hpp"

namespace densepath {

// How an image becomes the input: resize, centre crop, normalise.
// src/densepath/images/preprocess.py says what the fields mean.
struct Preprocess {
  size_t height = 0, width = 0;
  size_t resize_short = 0;    // 0: resized straight to the size.
  std::string interpolation;  // bilinear, bicubic, cv2_bilinear.
  bool rounds_side = false, floors_corner = false;
  std::vector<double> mean, std;
  std::optional<Intensity> intensity;

  ReadAs read_as() const { return {mean.size(), intensity}; }
};

// For each new position along one side the first old one, and `taps` weights in 2⁻²².
struct Weights {
  int taps = 0;
  std::vector<int32_t> first, weights;
};

// Resizes by weights: the rows' and the columns' own, height first or width first. The bytes of
// `image` and of the result have 64 more behind them.
using Resize = std::vector<uint8_t> (*)(const uint8_t* image, size_t width, size_t channels,
                                        const Weights& rows, const Weights& columns,
                                        bool height_first);

// float32 [channels, height, width], resized, cropped, normalised.
std::vector<float> preprocess_image(const Preprocess& preprocess, const Image& image,
                                    Resize resize);

}  // namespace densepath
