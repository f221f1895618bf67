// The numbers of a DICOM file's pixels → its values: `densepath.images.dicom_values`.
#pragma once

#include <string>

#include "dicom_header.hpp"
#include "values.hpp"

namespace densepath {

// How the pixels of a DICOM file lie in it.
struct DicomLayout {
  size_t rows = 0, columns = 0, samples = 1, allocated = 16, stored = 16;
  std::string photometric;
  bool planar = false, is_signed = false;

  size_t count() const { return rows * columns * samples; }

  // What the header says. Throws ImageError: such pixels are not read.
  static DicomLayout of(const DicomElements& head);
};

// The values of numbers [rows, columns, samples]. Throws ImageError.
Values dicom_values(const DicomElements& head, const DicomLayout& layout,
                    std::vector<int32_t> numbers);

}  // namespace densepath
