#include "png_notes.hpp"

#include "inflate.hpp"

namespace densepath {
namespace {

constexpr size_t MOST_TEXT_BYTES = size_t{1} << 20;  // Pillow's MAX_TEXT_CHUNK.
constexpr std::string_view XMP_KEY = "XML:com.adobe.xmp";
constexpr std::string_view RAW_EXIF_KEY = "Raw profile type exif";

// The text up to the first zero byte, which is taken off `rest` with it.
std::string_view take_word(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view word = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return word;
}

Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

int hexadecimal_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// EXIF as ImageMagick writes it into text: three lines of title, then hexadecimal digits. A text
// that is none gives EXIF that is none, so that the picture stays as it is.
std::string from_raw_profile(std::string_view text) {
  for (int i = 0; i < 3; ++i) {
    const size_t end = text.find('\n');
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  std::string bytes;
  int upper = -1;
  for (const char c : text) {
    const int value = hexadecimal_value(c);
    if (value < 0 && c != '\n' && c != ' ') return "damaged";
    if (value < 0) continue;
    if (upper < 0) {
      upper = value;
    } else {
      bytes += static_cast<char>(upper * 16 + value);
      upper = -1;
    }
  }
  return upper < 0 ? bytes : "damaged";
}

bool is_wanted(std::string_view key) { return key == XMP_KEY || key == RAW_EXIF_KEY; }

}  // namespace

void PngNotes::take(std::string_view name, Bytes data) {
  if (name == "eXIf") notes_.exif = std::string(data.text());
  if (name == "tEXt") take_text(data.text());
  if (name == "zTXt") take_compressed_text(data.text());
  if (name == "iTXt") take_international_text(data.text());
}

Notes PngNotes::found() const {
  Notes notes = notes_;
  if (!notes.exif && !raw_exif_.empty()) notes.exif = from_raw_profile(raw_exif_);
  return notes;
}

void PngNotes::take_text(std::string_view rest) {
  const std::string_view key = take_word(rest);
  if (key == "exif") notes_.exif = std::string(rest);
  if (is_wanted(key)) keep(key, rest);
}

void PngNotes::take_compressed_text(std::string_view rest) {
  const std::string_view key = take_word(rest);
  if (!rest.empty() && rest[0] != 0) {
    throw ImageError("a damaged PNG file: Unknown compression method " +
                     std::to_string(static_cast<unsigned char>(rest[0])) + " in zTXt chunk");
  }
  if (!is_wanted(key)) return;
  const Bytes compressed = as_bytes(rest.substr(rest.empty() ? 0 : 1));
  keep(key, inflate_text(compressed, MOST_TEXT_BYTES).value_or(""));
}

void PngNotes::take_international_text(std::string_view rest) {
  const std::string_view key = take_word(rest);
  if (rest.size() < 2 || !is_wanted(key)) return;
  const bool compressed = rest[0] != 0;
  const bool known = rest[1] == 0;
  rest.remove_prefix(2);
  take_word(rest);  // language
  take_word(rest);  // keyword in it
  if (compressed && !known) return;
  const auto plain = compressed ? inflate_text(as_bytes(rest), MOST_TEXT_BYTES) : std::string(rest);
  if (plain) keep(key, *plain);
}

void PngNotes::keep(std::string_view key, std::string_view text) {
  (key == XMP_KEY ? notes_.xmp : raw_exif_) = text;
}

}  // namespace densepath
