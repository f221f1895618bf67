// A deep file's values → uint8 pixels, by the setting `intensity`: `densepath.images.values`.
//
// All arithmetic is in double and in the order written in Python, so that both give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"
#include "intensity.hpp"

namespace densepath {

// From one value to a byte.
using Course = std::function<uint8_t(double)>;

// What a file has for each pixel, [height, width, channels], of integers or of floats.
struct Values {
  size_t height = 0, width = 0, channels = 1;
  std::vector<int32_t> integers;  // The numbers less `bias`.
  std::vector<float> floats;      // In their place.
  int64_t least = 0, most = 0;    // Of the integers' type.
  int64_t bias = 0;               // 2³¹ for unsigned numbers of 32 bits.
  std::string what;               // For a person: "a DICOM file of 12 bits".
  double slope = 1, intercept = 0;
  bool inverted = false;         // The least value is white.
  bool shown = false;            // Made for a screen already: 8 bits, black 0, white 255.
  std::optional<Course> own;     // The file's own way; of integers else the range of their type.
  std::vector<uint8_t> white{};  // Not 0 where a pixel is transparent; empty: none is.
  int orientation = 1;

  size_t count() const { return height * width * channels; }
  bool has_floats() const { return !floats.empty(); }

  // Throws ImageError: a float is not a finite number.
  void check_finite() const;

  // The pixels, upright. Throws ImageError: the setting and the file do not fit, or the file has
  // other channels.
  Image to_image(const ReadAs& read_as) const;

 private:
  std::vector<uint8_t> to_bytes(const std::optional<Intensity>& intensity) const;
  std::vector<uint8_t> through(const Course& course) const;
  std::pair<double, double> percentiles(double low, double high) const;
};

// Values of pixels that were made for a screen.
Values shown_values(Image image, const std::string& what);

// `low` and less is 0, `high` and more 255, between them a line; where both are one, a step.
Course line(double low, double high);

// DICOM's function SIGMOID (PS3.3, C.11.2.1.3.1).
Course sigmoid(double centre, double width);

// A look-up table whose first output is of the value `first`.
Course table(int64_t first, std::vector<uint8_t> outputs);

// RGB → gray: ITU-R 601-2 luma by Pillow's integers.
Image to_gray(const Image& image);

}  // namespace densepath
