#include "decode.hpp"

#include <new>
#include <string_view>
#include <vector>

#include "dicom_header.hpp"
#include "exif.hpp"
#include "file.hpp"
#include "text.hpp"

namespace densepath {
namespace {

constexpr size_t START_BYTES = 512;
// No JPEG or PNG of the pixels allowed is larger: 89 million pixels of 8 bytes, uncompressed.
constexpr size_t MOST_BYTES = size_t{1} << 30;
constexpr std::string_view JPEG_START = "\xff\xd8\xff";
constexpr std::string_view PNG_START = "\x89PNG\r\n\x1a\n";
constexpr std::string_view NPY_START = "\x93NUMPY";
constexpr size_t MOST_CHANNELS = 16;

struct Kind {
  std::string_view start, reason;
};

// What stands in place of an image, by its first bytes, in lower case; as in images/refusals.py.
constexpr Kind OTHER_KINDS[] = {
    {"<!doctype", "a web page, not an image"},
    {"<html", "a web page, not an image"},
    {"<?xml", "XML text, not an image"},
    {"<svg", "an SVG drawing, not pixels; save it as PNG"},
    {"version https://git-lfs", "a Git LFS pointer, not the image itself; run `git lfs pull`"},
    {"%pdf", "a PDF, not an image; save its pages as PNG"},
    {{"\0\0\0\x0cjp  ", 8}, "a JPEG 2000 image, a kind that is not read; save it as PNG"},
    {"\xffo\xffq", "a JPEG 2000 image, a kind that is not read; save it as PNG"},
    {"\xff\x0a", "a JPEG XL image, a kind that is not read; save it as PNG"},
    {{"\0\0\0\x0cjxl ", 8}, "a JPEG XL image, a kind that is not read; save it as PNG"},
    {"ii\xbc", "a JPEG XR image, a kind that is not read; save it as PNG"},
    {"p7\n", "a PAM image, a kind that is not read; save it as PNG"},
    {"\x93numpy",
     "a NumPy array, not an image; it is read for networks that have the setting intensity "
     "(docs/data.md)"},
    {"qoif", "a QOI image, a kind that is not read; save it as PNG"},
    {"8bps", "a Photoshop file, a kind that is not read; save it as PNG"},
    {"pk\x03\x04", "a zip archive, not an image"},
    {"\x1f\x8b", "a gzip archive, not an image"},
};

// ISO media files say their kind ("brand") at byte 8.
constexpr Kind OTHER_BRANDS[] = {
    {"avif", "an AVIF image, a kind that this program does not read; save it as PNG"},
    {"avis", "an AVIF image, a kind that this program does not read; save it as PNG"},
    {"heic", "a HEIC photo, a kind that this program does not read; save it as JPEG"},
    {"heix", "a HEIC photo, a kind that this program does not read; save it as JPEG"},
    {"mif1", "a HEIF photo, a kind that this program does not read; save it as JPEG"},
    {"crx ", "a raw photo, a kind that is not read; save it as JPEG"},
};

// Kinds that the Python program reads and this one does not.
constexpr Kind PYTHON_KINDS[] = {
    {"GIF87a", "a GIF image"},
    {"GIF89a", "a GIF image"},
    {"BM", "a BMP image"},
    {{"II\x2a\0", 4}, "a TIFF image"},
    {{"MM\0\x2a", 4}, "a TIFF image"},
    {{"II\x2b\0", 4}, "a TIFF image"},
    {{"MM\0\x2b", 4}, "a TIFF image"},
};

std::string python_kind(Bytes start) {
  const std::string_view text = start.text();
  std::string kind;
  for (const Kind& known : PYTHON_KINDS) {
    if (start.starts_with(known.start)) kind = known.reason;
  }
  if (start.starts_with("RIFF") && text.substr(0, 12).substr(8) == "WEBP") kind = "a WEBP image";
  if (text.size() > 1 && text[0] == 'P' && text[1] >= '1' && text[1] <= '6') kind = "a PPM image";
  return kind.empty() ? kind : kind + ", a kind that this program does not read; save it as PNG";
}

std::string_view after_blanks(std::string_view text) {
  constexpr std::string_view BLANKS = "\xef\xbb\xbf \t\r\n";
  const size_t first = text.find_first_not_of(BLANKS);
  return first == std::string_view::npos ? std::string_view{} : text.substr(first);
}

// What a file is that starts so and is of no kind that is read.
std::string what_it_is_instead(Bytes start) {
  if (const std::string kind = python_kind(start); !kind.empty()) return kind;
  const std::string text = lower(after_blanks(start.text()));
  for (const Kind& kind : OTHER_KINDS) {
    if (text.compare(0, kind.start.size(), kind.start) == 0) return std::string(kind.reason);
  }
  if (is_dicom(start)) {
    return "a DICOM file, not an 8-bit image; it is read for networks that have the setting "
           "intensity (docs/data.md); or save it as an 8-bit PNG";
  }
  if (start.part(4, 4).text() == "ftyp") {
    for (const Kind& kind : OTHER_BRANDS) {
      if (start.part(8, 4).text() == kind.start) return std::string(kind.reason);
    }
    return "a video or another media file, not an image";
  }
  if (start.text().find_first_not_of('\0') == std::string_view::npos) {
    return "nothing but zero bytes";
  }
  return "not an image of a known kind (JPEG, PNG)";
}

bool is_readable(Bytes start) {
  return start.starts_with(JPEG_START) || start.starts_with(PNG_START);
}

void check_bytes(size_t size) {
  if (size > MOST_BYTES) throw ImageError("the file is larger than 1 GiB");
}

bool is_tiff(Bytes start) {
  for (const std::string_view mark :
       {std::string_view("II\x2a\0", 4), std::string_view("MM\0\x2a", 4),
        std::string_view("II\x2b\0", 4), std::string_view("MM\0\x2b", 4)}) {
    if (start.starts_with(mark)) return true;
  }
  return false;
}

// Whether a file that starts so is read for its values, beside JPEG and PNG.
bool is_of_values(Bytes start) {
  return is_dicom(start) || start.starts_with(NPY_START) || is_tiff(start);
}

Values read_values(Bytes file, size_t channels) {
  if (is_dicom(file)) return read_dicom(file);
  if (file.starts_with(NPY_START)) return read_npy(file, channels);
  if (file.starts_with(PNG_START)) return read_png(file, channels);
  if (is_tiff(file)) {
#ifdef DENSEPATH_TIFF
    return read_tiff(file, channels);
#else
    throw ImageError(
        "a TIFF image, and this program was built without libtiff; install it (libtiff-dev) and "
        "build again, or save it as a 16-bit PNG");
#endif
  }
  int turned = 1;
  Image image = decode_jpeg(file, turned);
  Values made =
      shown_values(channels == 1 ? to_gray(image) : std::move(image), "a JPEG image of 8 bits");
  made.orientation = turned;
  return made;
}

}  // namespace

Image open_image(const std::string& path, const ReadAs& read_as) {
  try {
    const File file(path);
    // A film of 10 GB is not read to learn that it is none of ours.
    const std::vector<uint8_t> start = file.read(START_BYTES);
    const bool by_value = read_as.by_value() && is_of_values(Bytes(start));
    if (!by_value && !is_readable(Bytes(start))) {
      throw ImageError(what_it_is_instead(Bytes(start)));
    }
    check_bytes(file.size());
    const std::vector<uint8_t> whole = file.read(file.size());
    return decode_image(Bytes(whole), read_as);
  } catch (const std::bad_alloc&) {
    throw ImageError("not enough memory to decode it");
  }
}

Image open_image_bytes(Bytes file, const ReadAs& read_as) {
  if (file.size() == 0) throw ImageError("the file is empty");
  if (is_readable(file)) check_bytes(file.size());
  try {
    return decode_image(file, read_as);
  } catch (const std::bad_alloc&) {
    throw ImageError("not enough memory to decode it");
  }
}

Image decode_image(Bytes file, const ReadAs& read_as) {
  const size_t channels = read_as.channels;
  if (channels < 1 || channels > MOST_CHANNELS) {
    throw UsageError("channels is " + std::to_string(channels) + "; files are read with 1 to 16.");
  }
  if (read_as.by_value() && (is_readable(file) || is_of_values(file))) {
    return read_values(file, channels).to_image(read_as);
  }
  if (!is_readable(file)) throw ImageError(what_it_is_instead(file.part(0, START_BYTES)));
  int turned = 1;
  Image image = file.starts_with(JPEG_START) ? decode_jpeg(file, turned) : decode_png(file, turned);
  image = upright(std::move(image), turned);
  return channels == 1 ? to_gray(image) : image;
}

void check_pixels(uint64_t width, uint64_t height) {
  // Both are below 2³², so that the product cannot overflow.
  if (width * height > MAX_PIXELS) {
    throw ImageError(std::to_string(width) + " × " + std::to_string(height) + " is more than the " +
                     with_commas(MAX_PIXELS) + " pixels allowed");
  }
}

uint8_t share_of(unsigned a, unsigned b) {
  const unsigned product = a * b + 128;
  return static_cast<uint8_t>(((product >> 8) + product) >> 8);
}

uint8_t over_white(uint8_t value, uint8_t alpha) {
  // Pillow 13 AlphaComposite.c over an opaque white: 7 bits more, one rounded division by 255.
  const uint32_t sum = (value * uint32_t{alpha} + 255U * (255U - alpha) + 0x80U) << 7;
  return static_cast<uint8_t>((((sum >> 8) + sum) >> 8) >> 7);
}

}  // namespace densepath
