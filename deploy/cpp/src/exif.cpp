#include "exif.hpp"

#include <array>
#include <cstdint>
#include <string_view>

namespace densepath {
namespace {

constexpr uint64_t ORIENTATION_TAG = 0x0112;
constexpr int UPRIGHT = 1;
constexpr std::string_view EXIF_START{"Exif\0\0", 6};

// What a directory says of the orientation.
enum class Found { nothing, value, damaged };

struct Tag {
  Found found;
  int orientation = UPRIGHT;
};

// Bytes of one value of a TIFF type; 0 for a type that does not exist.
size_t unit_bytes(uint64_t type) {
  // 1 byte, 2 text, 3 short, 4 long, 5 rational, 6 … 10 the signed ones, 11 float, 12 double,
  // 13 directory, 16 long of 8 bytes.
  static constexpr std::array<size_t, 17> BYTES = {0, 1, 1, 2, 4, 8, 1, 1, 2,
                                                   4, 8, 4, 8, 4, 0, 0, 8};
  return type < BYTES.size() ? BYTES[static_cast<size_t>(type)] : 0;
}

bool is_integer(uint64_t type) {
  return type == 3 || type == 4 || type == 6 || type == 8 || type == 9 || type == 13 || type == 16;
}

// The first whole number of a tag's data; anything else leaves the picture as it is.
Tag integer_value(Bytes data, uint64_t type, bool big_endian) {
  if (!is_integer(type)) return {Found::value};
  const auto value = data.number(0, unit_bytes(type), big_endian);
  const bool turns = value && *value >= 1 && *value <= 8;
  return {Found::value, turns ? static_cast<int>(*value) : UPRIGHT};
}

// The orientation in the first directory of a TIFF structure.
Tag read_directory(Bytes tiff) {
  static constexpr std::array<std::string_view, 5> STARTS = {
      std::string_view{"II\x2a\0", 4}, std::string_view{"MM\0\x2a", 4},
      std::string_view{"II\0\x2a", 4}, std::string_view{"MM\x2a\0", 4},
      std::string_view{"MM\0\x2b", 4}};
  bool known = false;
  for (const std::string_view start : STARTS) known = known || tiff.starts_with(start);
  if (!known) return {Found::damaged};
  const bool big_endian = tiff.starts_with("MM");
  const auto offset = tiff.number(4, 4, big_endian);
  if (!offset) return {Found::damaged};

  const auto start = static_cast<size_t>(*offset);
  const auto num_entries = tiff.number(start, 2, big_endian);
  uint64_t bytes_outside = 0;
  for (uint64_t i = 0; num_entries && i < *num_entries; ++i) {
    const Bytes entry = tiff.part(start + 2 + static_cast<size_t>(i) * 12, 12);
    if (entry.size() < 12) break;
    const auto type = *entry.number(2, 2, big_endian);
    const uint64_t size = *entry.number(4, 4, big_endian) * unit_bytes(type);
    Bytes data = entry.part(8, static_cast<size_t>(size));
    if (size > 4) {
      bytes_outside += size;
      if (bytes_outside > tiff.size()) continue;
      data = tiff.part(static_cast<size_t>(*entry.number(8, 4, big_endian)),
                       static_cast<size_t>(size));
      if (data.size() < size) break;
    }
    const bool wanted = *entry.number(0, 2, big_endian) == ORIENTATION_TAG;
    if (wanted && size > 0) return integer_value(data, type, big_endian);
  }
  return {Found::nothing};
}

Tag read_exif(std::string_view exif) {
  for (int i = 0; i < 2 && exif.substr(0, EXIF_START.size()) == EXIF_START; ++i) {
    exif.remove_prefix(EXIF_START.size());
  }
  if (exif.empty()) return {Found::nothing};
  return read_directory({reinterpret_cast<const uint8_t*>(exif.data()), exif.size()});
}

// `tiff:Orientation="6"` or `tiff:Orientation>6`, wherever it stands.
int read_xmp(std::string_view xmp) {
  static constexpr std::string_view NAME = "tiff:Orientation";
  for (size_t at = xmp.find(NAME); at != std::string_view::npos; at = xmp.find(NAME, at + 1)) {
    std::string_view rest = xmp.substr(at + NAME.size());
    const size_t mark = rest.substr(0, 2) == "=\"" ? 2 : rest.substr(0, 1) == ">" ? 1 : 0;
    if (mark > 0 && rest.size() > mark && rest[mark] >= '0' && rest[mark] <= '9') {
      const int value = rest[mark] - '0';
      return value >= 1 && value <= 8 ? value : UPRIGHT;
    }
  }
  return UPRIGHT;
}

}  // namespace

int orientation(const Notes& notes) {
  const Tag tag = notes.exif ? read_exif(*notes.exif) : Tag{Found::nothing};
  if (tag.found == Found::nothing) return read_xmp(notes.xmp);
  return tag.orientation;
}

Image upright(Image image, int orientation) {
  if (orientation == UPRIGHT) return image;
  // From 5 on, rows become columns. Where a pixel of the upright picture is taken from:
  const bool swap = orientation >= 5;
  const bool from_bottom =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const size_t channels = image.channels;
  Image turned{swap ? image.width : image.height, swap ? image.height : image.width, channels, {}};
  turned.pixels.resize(image.pixels.size());
  uint8_t* to = turned.pixels.data();
  for (size_t row = 0; row < turned.height; ++row) {
    for (size_t column = 0; column < turned.width; ++column, to += channels) {
      size_t y = swap ? column : row;
      size_t x = swap ? row : column;
      if (from_bottom) y = image.height - 1 - y;
      if (from_right) x = image.width - 1 - x;
      std::memcpy(to, &image.pixels[(y * image.width + x) * channels], channels);
    }
  }
  return turned;
}

}  // namespace densepath
