// Which of a file's values are black and white: `densepath.images.intensity`, and how files are
// read for a network.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace densepath {

// The setting of a Bundle's preprocessing.
struct Intensity {
  std::string kind;            // file, range, window, percentiles.
  std::vector<double> values;  // Two numbers; none for file.

  // Why no image could be read so; empty where it is well.
  std::string wrong() const;

  // "window:40,400"
  std::string to_text() const;

  // The values of black and white, where they are the same for every file.
  std::optional<std::pair<double, double>> span() const;
};

// The values of black and white by DICOM's function LINEAR (PS3.3, C.11.2.1.2.1).
std::pair<double, double> linear_window(double centre, double width);

// How files are read for a network: `densepath.images.read_as`.
struct ReadAs {
  size_t channels = 3;
  std::optional<Intensity> intensity = std::nullopt;

  // Whether files of measured values are read: DICOM, .npy, TIFF.
  bool by_value() const { return intensity.has_value() || (channels != 1 && channels != 3); }
};

}  // namespace densepath
