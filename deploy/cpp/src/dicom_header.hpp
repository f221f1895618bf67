// The elements of a DICOM header that make an image; and no other element is kept or told of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bytes.hpp"

namespace densepath {

namespace dicom {

constexpr char DAMAGED[] = "a damaged DICOM file";
constexpr uint32_t PIXELS = 0x7FE00010, LUT = 0x00283002, LUT_DATA = 0x00283006;
constexpr uint32_t FRAMES = 0x00280008, SAMPLES = 0x00280002, PHOTOMETRIC = 0x00280004,
                   PLANAR = 0x00280006, ROWS = 0x00280010, COLUMNS = 0x00280011;
constexpr uint32_t ALLOCATED = 0x00280100, STORED = 0x00280101, HIGH_BIT = 0x00280102,
                   SIGNED = 0x00280103;
constexpr uint32_t CENTRE = 0x00281050, WIDTH = 0x00281051, INTERCEPT = 0x00281052,
                   SLOPE = 0x00281053, FUNCTION = 0x00281056;
constexpr uint32_t PALETTE = 0x00281101, PALETTE_DATA = 0x00281201;  // Of red; green, blue behind.
constexpr uint32_t MODALITY_LUT = 0x00283000, VOI_LUT = 0x00283010, SHARED_GROUPS = 0x52009229;

}  // namespace dicom

// How the elements of a file are written: PS3.5, annex A.
struct DicomSyntax {
  bool is_explicit = true, big_endian = false, is_rle = false;
};

// The wanted elements of a file or of an item.
class DicomElements {
 public:
  // Reads the elements of `part` up to its pixels. Throws ImageError.
  DicomElements(Bytes part, DicomSyntax syntax);

  bool has(uint32_t tag) const { return found_.count(tag) > 0; }
  Bytes raw(uint32_t tag) const;
  std::string text(uint32_t tag) const;
  size_t whole(uint32_t tag, std::optional<size_t> otherwise = std::nullopt) const;
  std::optional<double> number(uint32_t tag) const;
  std::vector<uint16_t> words(uint32_t tag) const;
  // The first item of a sequence; nothing where there is none.
  std::optional<DicomElements> item(uint32_t tag) const;

  const DicomSyntax& syntax() const { return syntax_; }

 private:
  DicomSyntax syntax_;
  std::map<uint32_t, Bytes> found_;
};

// Whether a file of these first bytes is DICOM, whatever its name.
bool is_dicom(Bytes start);

// The UID of the file's transfer syntax; `start` is then where its elements start.
//
// Throws ImageError.
std::string transfer_syntax(Bytes file, size_t& start);

}  // namespace densepath
