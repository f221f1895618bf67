#include "text.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <iterator>

namespace densepath {
namespace {

struct Range {
  uint32_t first, last;
};

// Categories Cc, Cf, Cs, Co, Zl, Zp and Zs but the blank, of Unicode 14 (Python 3.11).
// A test compares them with `str.isprintable` over all assigned code points.
constexpr Range NOT_PRINTABLE[] = {
    {0x0000, 0x001f},   {0x007f, 0x00a0},   {0x00ad, 0x00ad},   {0x0600, 0x0605},
    {0x061c, 0x061c},   {0x06dd, 0x06dd},   {0x070f, 0x070f},   {0x0890, 0x0891},
    {0x08e2, 0x08e2},   {0x1680, 0x1680},   {0x180e, 0x180e},   {0x2000, 0x200f},
    {0x2028, 0x202f},   {0x205f, 0x2064},   {0x2066, 0x206f},   {0x3000, 0x3000},
    {0xd800, 0xf8ff},   {0xfeff, 0xfeff},   {0xfff9, 0xfffb},   {0x110bd, 0x110bd},
    {0x110cd, 0x110cd}, {0x13430, 0x13438}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a},
    {0xe0001, 0xe0001}, {0xe0020, 0xe007f}, {0xf0000, 0xffffd}, {0x100000, 0x10fffd},
};

constexpr uint32_t ESCAPE = 0xdc00;

bool is_printable(uint32_t point) {
  const auto after =
      std::upper_bound(std::begin(NOT_PRINTABLE), std::end(NOT_PRINTABLE), point,
                       [](uint32_t value, const Range& range) { return value < range.first; });
  return after == std::begin(NOT_PRINTABLE) || point > std::prev(after)->last;
}

// The bytes of the UTF-8 sequence at the start of `bytes`, or 0 where there is none.
size_t sequence_length(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || bytes.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies above U+10FFFF show in the second byte.
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

void append_utf8(std::string& text, uint32_t point) {
  if (point < 0x80) {
    text += static_cast<char>(point);
    return;
  }
  const int rest = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  static constexpr std::array<uint32_t, 4> LEAD = {0, 0xc0, 0xe0, 0xf0};
  text += static_cast<char>(LEAD[static_cast<size_t>(rest)] | (point >> (6 * rest)));
  for (int i = rest - 1; i >= 0; --i) {
    text += static_cast<char>(0x80 | ((point >> (6 * i)) & 0x3f));
  }
}

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  std::array<char, 40> buffer;
  std::snprintf(buffer.data(), buffer.size(), pattern, values...);
  return buffer.data();
}

// What stands in a JSON string for `point` where it must be escaped.
std::string json_escape(uint32_t point) {
  switch (point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (point < 0x10000) return format("\\u%04x", static_cast<unsigned>(point));
  const unsigned above = point - 0x10000;
  return format("\\u%04x\\u%04x", 0xd800 + (above >> 10), 0xdc00 + (above & 0x3ff));
}

}  // namespace

std::vector<uint32_t> code_points(std::string_view bytes) {
  std::vector<uint32_t> points;
  points.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto first = static_cast<uint8_t>(bytes[0]);
    const size_t length = sequence_length(bytes);
    if (length <= 1) {
      points.push_back(length == 1 ? first : ESCAPE + first);
      bytes.remove_prefix(1);
      continue;
    }
    uint32_t point = first & (0x7fU >> length);
    for (size_t i = 1; i < length; ++i) {
      point = point << 6 | (static_cast<uint8_t>(bytes[i]) & 0x3f);
    }
    points.push_back(point);
    bytes.remove_prefix(length);
  }
  return points;
}

bool is_printable(std::string_view bytes) {
  const auto points = code_points(bytes);
  return std::all_of(points.begin(), points.end(),
                     [](uint32_t point) { return is_printable(point); });
}

std::string readable(std::string_view bytes) {
  std::string text;
  for (const uint32_t point : code_points(bytes)) {
    if (point >= ESCAPE && point < ESCAPE + 0x100) {
      text += format("\\x%02x", static_cast<unsigned>(point - ESCAPE));
    } else {
      append_utf8(text, point);
    }
  }
  return text;
}

std::string base64(std::string_view bytes) {
  static constexpr char DIGITS[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      const bool filled = i + k <= bytes.size();
      text += filled ? DIGITS[group >> (18 - 6 * k) & 0x3f] : '=';
    }
  }
  return text;
}

std::string printable(std::string_view bytes) {
  std::string text;
  for (const uint32_t point : code_points(readable(bytes))) {
    if (is_printable(point)) {
      append_utf8(text, point);
    } else if (point == '\n' || point == '\r' || point == '\t') {
      text += json_escape(point);
    } else if (point < 0x100) {
      text += format("\\x%02x", static_cast<unsigned>(point));
    } else if (point < 0x10000) {
      text += format("\\u%04x", static_cast<unsigned>(point));
    } else {
      text += format("\\U%08x", static_cast<unsigned>(point));
    }
  }
  return text;
}

std::string json_string(std::string_view bytes, bool ascii_only) {
  std::string text = "\"";
  for (const uint32_t point : code_points(bytes)) {
    const bool escaped = point < 0x20 || point == '"' || point == '\\' ||
                         (point >= 0xd800 && point < 0xe000) || (ascii_only && point > 0x7e);
    if (escaped) {
      text += json_escape(point);
    } else {
      append_utf8(text, point);
    }
  }
  return text += '"';
}

std::string json_score(double score) {
  std::string digits = format("%.6f", score);
  const double rounded = std::strtod(digits.c_str(), nullptr);
  // Python changes to an exponent below 1e-4; six digits leave at most two figures there.
  if (rounded != 0 && rounded < 1e-4) {
    std::string text = format("%.1e", rounded);
    const size_t zero = text.find(".0e");
    return zero == std::string::npos ? text : text.erase(zero, 2);
  }
  while (digits.back() == '0' && digits[digits.size() - 2] != '.') digits.pop_back();
  return digits;
}

std::string with_commas(uint64_t value) {
  std::string text = std::to_string(value);
  for (size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += between;
    text += part;
  }
  return text;
}

std::string lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lowered;
}

}  // namespace densepath
