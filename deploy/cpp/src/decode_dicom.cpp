// A DICOM file → its values: `densepath.images.dicom`. Of its header nothing but what makes the
// image is kept, and nothing of it is quoted in an error.
#include <cctype>
#include <string>
#include <vector>

#include "decode.hpp"
#include "dicom_header.hpp"
#include "dicom_values.hpp"
#include "text.hpp"

namespace densepath {
namespace {

using namespace dicom;

constexpr char UNPACK[] = "unpack it first: `gdcmconv -w IN OUT` or DCMTK's `dcmdjpeg IN OUT`";
constexpr size_t RLE_HEADER = 64;
constexpr size_t MOST_SEGMENTS = 15;

struct Compressed {
  std::string_view start, what;
};

constexpr Compressed COMPRESSED[] = {
    {"1.2.840.10008.1.2.1.99", "a deflated DICOM file"},
    {"1.2.840.10008.1.2.4.5", "a DICOM file compressed as JPEG"},
    {"1.2.840.10008.1.2.4.7", "a DICOM file compressed as lossless JPEG"},
    {"1.2.840.10008.1.2.4.8", "a DICOM file compressed as JPEG-LS"},
    {"1.2.840.10008.1.2.4.9", "a DICOM file compressed as JPEG 2000"},
    {"1.2.840.10008.1.2.4.10", "a DICOM file compressed as a film"},
    {"1.2.840.10008.1.2.4.11", "a DICOM file compressed as JPEG XL"},
    {"1.2.840.10008.1.2.4.20", "a DICOM file compressed as HTJ2K"},
};

[[noreturn]] void damaged(const std::string& what) {
  throw ImageError(std::string(DAMAGED) + ": " + what);
}

DicomSyntax syntax_of(const std::string& uid) {
  DicomSyntax made;
  if (uid == "1.2.840.10008.1.2") made.is_explicit = false;
  if (uid == "1.2.840.10008.1.2.2") made.big_endian = true;
  if (uid == "1.2.840.10008.1.2.5") made.is_rle = true;
  if (!made.is_explicit || made.big_endian || made.is_rle || uid == "1.2.840.10008.1.2.1") {
    return made;
  }
  for (const Compressed& known : COMPRESSED) {
    if (uid.compare(0, known.start.size(), known.start) == 0) {
      throw ImageError(std::string(known.what) + ", which is not read; " + UNPACK);
    }
  }
  throw ImageError(std::string("a DICOM file in a transfer syntax that is not read; ") + UNPACK);
}

// One segment of bytes: PS3.5, annex G.3.
std::vector<uint8_t> unpack_segment(Bytes packed, size_t size) {
  std::vector<uint8_t> made;
  made.reserve(size);
  size_t at = 0;
  while (made.size() < size) {
    const auto head = packed.number(at, 1, false);
    if (!head) damaged("its pixels");
    ++at;
    if (*head < 128) {
      const Bytes plain = packed.part(at, static_cast<size_t>(*head) + 1);
      if (plain.size() < *head + 1) damaged("its pixels");
      made.insert(made.end(), plain.begin(), plain.end());
      at += plain.size();
    } else if (*head > 128) {
      const auto value = packed.number(at, 1, false);
      if (!value) damaged("its pixels");
      made.insert(made.end(), static_cast<size_t>(257 - *head), static_cast<uint8_t>(*value));
      ++at;
    }
  }
  made.resize(size);
  return made;
}

// The bytes of a run-length encoded frame as they would lie uncompressed, pixel by pixel.
std::vector<uint8_t> unpack_rle(Bytes items, const DicomLayout& layout) {
  const auto length_at = [&](size_t at) {
    const auto tag = items.number(at, 4, false), length = items.number(at + 4, 4, false);
    if (!tag || !length || *tag != 0xE000FFFE) damaged("its pixels");
    return static_cast<size_t>(*length);
  };
  const size_t second = 8 + length_at(0);  // Behind the table of offsets.
  const Bytes frame = items.part(second + 8, length_at(second));
  const size_t width = layout.allocated / 8, segments = layout.samples * width;
  const auto count = frame.number(0, 4, false);
  if (frame.size() < RLE_HEADER || segments > MOST_SEGMENTS || *count != segments) {
    damaged("its pixels");
  }
  const size_t pixels = layout.rows * layout.columns;
  std::vector<uint8_t> made(pixels * segments);
  for (size_t i = 0; i < segments; ++i) {
    const auto start = static_cast<size_t>(*frame.number(4 + 4 * i, 4, false));
    const auto next =
        i + 1 < segments ? static_cast<size_t>(*frame.number(8 + 4 * i, 4, false)) : frame.size();
    if (start < RLE_HEADER || next < start) damaged("its pixels");
    const std::vector<uint8_t> bytes = unpack_segment(frame.part(start, next - start), pixels);
    // Of each sample the upper byte comes first; here the lower one does.
    const size_t place = i / width * width + (width - 1 - i % width);
    for (size_t p = 0; p < pixels; ++p) made[p * segments + place] = bytes[p];
  }
  return made;
}

// The numbers without the bits that a file may use for other things, [rows, columns, samples].
std::vector<int32_t> numbers_of(Bytes raw, const DicomLayout& layout, bool planar, bool big) {
  const size_t width = layout.allocated / 8, pixels = layout.rows * layout.columns;
  if (raw.size() / width < layout.count()) damaged("it ends within its pixels");
  if (width == 1 && big) {
    throw ImageError(std::string("a DICOM file of 8 bits in the retired big-endian syntax; ") +
                     UNPACK);
  }
  const uint32_t mask = (uint32_t{1} << layout.stored) - 1;
  const auto sign = static_cast<int32_t>(uint32_t{1} << (layout.stored - 1));
  std::vector<int32_t> made(layout.count());
  for (size_t i = 0; i < made.size(); ++i) {
    const size_t pixel = i / layout.samples, sample = i % layout.samples;
    const size_t at = planar ? sample * pixels + pixel : i;
    auto value =
        static_cast<int32_t>(static_cast<uint32_t>(*raw.number(at * width, width, big)) & mask);
    if (layout.is_signed) value = (value ^ sign) - sign;
    made[i] = value;
  }
  return made;
}

}  // namespace

DicomLayout DicomLayout::of(const DicomElements& head) {
  if (!head.has(ROWS) || !head.has(COLUMNS) || !head.has(ALLOCATED)) {
    throw ImageError("a DICOM file without an image");
  }
  const std::string frames = head.text(FRAMES);
  if (!frames.empty() && frames != "1") {
    bool plain = frames.size() <= 6;
    for (const unsigned char c : frames) plain = plain && std::isdigit(c) != 0;
    throw ImageError("a DICOM file of " +
                     (plain ? with_commas(std::stoul(frames)) + " " : std::string()) +
                     "frames, a film; save the frame that is meant as a file");
  }
  DicomLayout made;
  made.rows = head.whole(ROWS);
  made.columns = head.whole(COLUMNS);
  made.samples = head.whole(SAMPLES, 1);
  made.photometric = head.text(PHOTOMETRIC);
  if (made.photometric.empty()) made.photometric = "MONOCHROME2";
  made.planar = head.whole(PLANAR, 0) == 1;
  made.allocated = head.whole(ALLOCATED);
  made.stored = head.whole(STORED, made.allocated);
  made.is_signed = head.whole(SIGNED, 0) == 1;
  const size_t high_bit = head.whole(HIGH_BIT, made.stored - 1);
  check_pixels(made.columns, made.rows);
  if (made.rows == 0 || made.columns == 0) damaged("it has no pixels");
  if (made.allocated != 8 && made.allocated != 16) {
    throw ImageError("a DICOM file of " + std::to_string(made.allocated) +
                     " bits a value, which is not read; those of 8 and 16 are");
  }
  if (made.stored == 0 || made.stored > made.allocated || high_bit != made.stored - 1) {
    damaged("its bits contradict each other");
  }
  const std::string& kind = made.photometric;
  const bool gray = kind == "MONOCHROME1" || kind == "MONOCHROME2" || kind == "PALETTE COLOR";
  const bool colour = (kind == "RGB" || kind == "YBR_FULL") && made.allocated == 8;
  if (!(made.samples == 1 && gray) && !(made.samples == 3 && colour)) {
    throw ImageError(
        "a DICOM file whose kind of colour is not read; MONOCHROME1, MONOCHROME2, PALETTE COLOR, "
        "and RGB and YBR_FULL of 8 bits are");
  }
  return made;
}

Values read_dicom(Bytes file) {
  size_t start = 0;
  const std::string uid = transfer_syntax(file, start);
  const DicomSyntax syntax = syntax_of(uid);
  const DicomElements head(file.part(start), syntax);
  const DicomLayout layout = DicomLayout::of(head);
  if (head.has(SHARED_GROUPS)) {
    throw ImageError(
        "an enhanced DICOM file, which keeps its window for each frame; save the frame as a "
        "classic DICOM file");
  }
  if (!head.has(PIXELS)) throw ImageError("a DICOM file without an image");
  if (!syntax.is_rle) {
    return dicom_values(head, layout,
                        numbers_of(head.raw(PIXELS), layout, layout.planar && layout.samples > 1,
                                   syntax.big_endian));
  }
  const std::vector<uint8_t> bytes = unpack_rle(head.raw(PIXELS), layout);
  return dicom_values(head, layout, numbers_of(Bytes(bytes), layout, false, false));
}

}  // namespace densepath
