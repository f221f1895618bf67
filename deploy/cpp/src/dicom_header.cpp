#include "dicom_header.hpp"

#include <cmath>
#include <locale>
#include <set>
#include <sstream>
#include <string_view>

#include "densepath/predictor.hpp"

namespace densepath {
namespace {

using namespace dicom;

constexpr size_t MARK_AT = 128;
constexpr uint64_t UNDEFINED = 0xFFFFFFFF;
constexpr uint32_t ITEM = 0xFFFEE000, ITEM_END = 0xFFFEE00D, SEQUENCE_END = 0xFFFEE0DD;
constexpr int MOST_DEPTH = 32;

[[noreturn]] void damaged() { throw ImageError(DAMAGED); }

bool is_wanted(uint32_t tag) {
  static const std::set<uint32_t> wanted = {FRAMES,       SAMPLES,
                                            PHOTOMETRIC,  PLANAR,
                                            ROWS,         COLUMNS,
                                            ALLOCATED,    STORED,
                                            HIGH_BIT,     SIGNED,
                                            CENTRE,       WIDTH,
                                            INTERCEPT,    SLOPE,
                                            FUNCTION,     PALETTE,
                                            PALETTE + 1,  PALETTE + 2,
                                            PALETTE_DATA, PALETTE_DATA + 1,
                                            MODALITY_LUT, PALETTE_DATA + 2,
                                            VOI_LUT,      SHARED_GROUPS,
                                            PIXELS,       LUT,
                                            LUT_DATA};
  return wanted.count(tag) > 0;
}

// PS3.5, 7.1.2: these kinds have a length of 32 bits behind two bytes of nothing.
bool is_long(std::string_view kind) {
  static const std::set<std::string_view> kinds = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ",
                                                   "SV", "UC", "UN", "UR", "UT", "UV"};
  return kinds.count(kind) > 0;
}

struct Element {
  uint32_t tag = 0;
  std::string kind;  // Empty where the syntax says none.
  uint64_t length = 0;
  size_t value = 0;  // Where its value starts.
};

std::optional<Element> element_at(Bytes part, size_t at, const DicomSyntax& syntax) {
  const bool big = syntax.big_endian;
  const auto group = part.number(at, 2, big), element = part.number(at + 2, 2, big);
  if (!group || !element) return std::nullopt;
  Element made;
  made.tag = static_cast<uint32_t>(*group << 16 | *element);
  std::optional<uint64_t> length;
  if (!syntax.is_explicit || made.tag >> 16 == 0xFFFE) {
    length = part.number(at + 4, 4, big);
    made.value = at + 8;
  } else {
    made.kind = std::string(part.part(at + 4, 2).text());
    const bool is_wide = is_long(made.kind);
    length = is_wide ? part.number(at + 8, 4, big) : part.number(at + 6, 2, big);
    made.value = at + (is_wide ? 12 : 8);
  }
  if (!length) return std::nullopt;
  made.length = *length;
  return made;
}

size_t end_of_sequence(Bytes part, size_t at, DicomSyntax syntax, int depth);

// Where the elements of an item without a length end.
size_t end_of_item(Bytes part, size_t at, DicomSyntax syntax, int depth) {
  if (depth > MOST_DEPTH) damaged();
  while (const auto element = element_at(part, at, syntax)) {
    if (element->tag == ITEM_END) return element->value;
    if (element->length == UNDEFINED) {
      DicomSyntax inner = syntax;
      if (element->kind == "UN") inner.is_explicit = false;
      at = end_of_sequence(part, element->value, inner, depth + 1);
    } else {
      at = element->value + static_cast<size_t>(element->length);
    }
  }
  damaged();
}

// Where a sequence without a length ends, which starts at `at`.
size_t end_of_sequence(Bytes part, size_t at, DicomSyntax syntax, int depth) {
  if (depth > MOST_DEPTH) damaged();
  while (const auto item = element_at(part, at, syntax)) {
    if (item->tag == SEQUENCE_END) return item->value;
    if (item->tag != ITEM) damaged();
    at = item->length == UNDEFINED ? end_of_item(part, item->value, syntax, depth + 1)
                                   : item->value + static_cast<size_t>(item->length);
  }
  damaged();
}

std::string stripped(std::string_view text) {
  constexpr std::string_view BLANKS(" \0", 2);
  const size_t first = text.find_first_not_of(BLANKS);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(BLANKS) - first + 1));
}

// Whether it is a number as Python's NUMBER has it: digits, a point, an exponent.
bool is_number(std::string_view text) {
  size_t at = 0;
  const auto sign = [&] { at += at < text.size() && (text[at] == '+' || text[at] == '-') ? 1 : 0; };
  const auto digits = [&] {
    const size_t start = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    return at - start;
  };
  sign();
  size_t number = digits();
  if (at < text.size() && text[at] == '.') {
    ++at;
    number += digits();
  }
  if (number == 0) return false;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    sign();
    if (digits() == 0) return false;
  }
  return at == text.size();
}

}  // namespace

DicomElements::DicomElements(Bytes part, DicomSyntax syntax) : syntax_(syntax) {
  size_t at = 0;
  while (const auto element = element_at(part, at, syntax)) {
    if (element->tag == ITEM_END) return;
    if (element->tag == PIXELS) {
      const auto count = element->length == UNDEFINED ? SIZE_MAX : element->length;
      found_[PIXELS] = part.part(element->value, static_cast<size_t>(count));
      return;
    }
    size_t end = element->value + static_cast<size_t>(element->length);
    if (element->length == UNDEFINED) {
      DicomSyntax inner = syntax;
      if (element->kind == "UN") inner.is_explicit = false;
      end = end_of_sequence(part, element->value, inner, 0);
    }
    if (is_wanted(element->tag)) {
      if (end > part.size()) damaged();
      found_[element->tag] = part.part(element->value, end - element->value);
    }
    at = end;
  }
}

Bytes DicomElements::raw(uint32_t tag) const {
  const auto found = found_.find(tag);
  return found == found_.end() ? Bytes() : found->second;
}

std::string DicomElements::text(uint32_t tag) const {
  const std::string_view whole = raw(tag).text();
  return stripped(whole.substr(0, whole.find('\\')));
}

size_t DicomElements::whole(uint32_t tag, std::optional<size_t> otherwise) const {
  const Bytes bytes = raw(tag);
  if (const auto value = bytes.number(0, 2, syntax_.big_endian)) return static_cast<size_t>(*value);
  if (!otherwise || bytes.size() > 0) {
    throw ImageError(std::string(DAMAGED) + ": a number of its header is missing");
  }
  return *otherwise;
}

std::optional<double> DicomElements::number(uint32_t tag) const {
  const std::string found = text(tag);
  if (found.empty()) return std::nullopt;
  double value = 0;
  std::istringstream stream(found);
  stream.imbue(std::locale::classic());
  if (!is_number(found) || !(stream >> value) || !std::isfinite(value)) {
    throw ImageError(std::string(DAMAGED) + ": its window or rescale is no number");
  }
  return value;
}

std::vector<uint16_t> DicomElements::words(uint32_t tag) const {
  const Bytes bytes = raw(tag);
  std::vector<uint16_t> made(bytes.size() / 2);
  for (size_t i = 0; i < made.size(); ++i) {
    made[i] = static_cast<uint16_t>(*bytes.number(2 * i, 2, syntax_.big_endian));
  }
  return made;
}

std::optional<DicomElements> DicomElements::item(uint32_t tag) const {
  const Bytes items = raw(tag);
  const auto item = element_at(items, 0, syntax_);
  if (!item || item->tag != ITEM) return std::nullopt;
  const auto count = item->length == UNDEFINED ? SIZE_MAX : static_cast<size_t>(item->length);
  return DicomElements(items.part(item->value, count), syntax_);
}

bool is_dicom(Bytes start) { return start.part(MARK_AT, 4).text() == "DICM"; }

std::string transfer_syntax(Bytes file, size_t& start) {
  const DicomSyntax meta;
  std::string found;
  size_t at = MARK_AT + 4;
  while (const auto element = element_at(file, at, meta)) {
    if (element->tag >> 16 != 0x0002) break;
    if (element->length == UNDEFINED) damaged();
    const auto length = static_cast<size_t>(element->length);
    if (element->tag == 0x00020010) {
      found = stripped(file.part(element->value, std::min<size_t>(length, 64)).text());
    }
    at = element->value + length;
  }
  if (found.empty()) throw ImageError(std::string(DAMAGED) + ": it does not say how it is written");
  start = at;
  return found;
}

}  // namespace densepath
