// An .npy array → its values: `densepath.images.npy` says how the sides are told apart.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "decode.hpp"
#include "text.hpp"

namespace densepath {
namespace {

constexpr size_t MARK_BYTES = 6;
constexpr size_t MOST_HEADER = 4096;
constexpr char DAMAGED[] = "a damaged .npy file";
constexpr char SAVE[] = "save x.astype(np.float32), or uint8, uint16, int16";

struct Header {
  std::string kind;  // "<u2"
  bool columns_first = false;
  std::vector<size_t> sides;
  size_t end = 0;  // Where the values start.
};

[[noreturn]] void damaged(const std::string& what) {
  throw ImageError(std::string(DAMAGED) + ": " + what);
}

// What stands behind the key `name` and its colon; empty where there is no such key.
std::string_view behind(std::string_view text, const std::string& name) {
  for (const char quote : {'\'', '"'}) {
    const std::string key = quote + name + quote + ':';
    const size_t at = text.find(key);
    if (at == std::string_view::npos) continue;
    text.remove_prefix(at + key.size());
    if (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    return text;
  }
  return {};
}

std::string read_kind(std::string_view text) {
  const std::string_view value = behind(text, "descr");
  if (!value.empty() && value.front() == '[') {
    throw ImageError(std::string("an array of records, not of numbers; ") + SAVE);
  }
  if (value.empty() || (value.front() != '\'' && value.front() != '"')) damaged("its header");
  const size_t end = value.find_first_of("'\"", 1);
  if (end == std::string_view::npos) damaged("its header");
  return std::string(value.substr(1, end - 1));
}

std::vector<size_t> read_sides(std::string_view text) {
  const std::string_view value = behind(text, "shape");
  const size_t end = value.find(')');
  if (value.empty() || value.front() != '(' || end == std::string_view::npos) damaged("its header");
  const std::string_view inside = value.substr(1, end - 1);
  if (inside.find_first_not_of("0123456789, ") != std::string_view::npos) damaged("its header");
  std::vector<size_t> sides;
  size_t at = 0;
  while (at <= inside.size()) {
    const size_t comma = std::min(inside.find(',', at), inside.size());
    std::string_view one = inside.substr(at, comma - at);
    while (!one.empty() && one.front() == ' ') one.remove_prefix(1);
    while (!one.empty() && one.back() == ' ') one.remove_suffix(1);
    if (one.size() >= 10 || one.find(' ') != std::string_view::npos) damaged("its sides");
    if (!one.empty()) sides.push_back(std::stoul(std::string(one)));
    at = comma + 1;
  }
  return sides;
}

Header read_header(Bytes file) {
  const auto major = file.number(MARK_BYTES, 1, false),
             minor = file.number(MARK_BYTES + 1, 1, false);
  if (!major || !minor || (*major != 1 && *major != 2) || *minor != 0) damaged("its header");
  const size_t width = *major == 1 ? 2 : 4;
  const auto length = file.number(MARK_BYTES + 2, width, false);
  if (!length || *length > MOST_HEADER) damaged("its header");
  Header made;
  made.end = MARK_BYTES + 2 + width + static_cast<size_t>(*length);
  const std::string_view text =
      file.part(MARK_BYTES + 2 + width, static_cast<size_t>(*length)).text();
  if (text.size() < *length) damaged("its header");
  made.kind = read_kind(text);
  const std::string_view order = behind(text, "fortran_order");
  made.columns_first = order.substr(0, 4) == "True";
  if (!made.columns_first && order.substr(0, 5) != "False") damaged("its header");
  made.sides = read_sides(text);
  return made;
}

void check_kind(const std::string& kind) {
  if (!kind.empty() && kind.back() == 'O') {
    throw ImageError("an array of Python objects, which are never read from a file");
  }
  const std::string type = kind.substr(std::min<size_t>(kind.size(), 1));
  const bool known = type == "u1" || type == "u2" || type == "i2" || type == "f4";
  const bool ordered = !kind.empty() && std::string_view("<>|").find(kind[0]) < 3;
  if (!known || !ordered) {
    throw ImageError(std::string("an array of another type than is read; ") + SAVE);
  }
}

std::string shown(const std::vector<size_t>& sides) {
  std::vector<std::string> texts;
  for (const size_t side : sides) texts.push_back(std::to_string(side));
  return texts.empty() ? "none" : join(texts, " × ");
}

// Which side is the channels: the last, the first, or, of two, none (3).
size_t channel_axis(const std::vector<size_t>& sides, size_t channels) {
  if (sides.size() == 2) return 3;
  const auto taken = [&](size_t side) {
    const bool photo = channels == 1 || channels == 3;
    return side == channels || (photo && (side == 1 || side == 3));
  };
  const bool last = taken(sides[2]), first = taken(sides[0]);
  if (last == first) {
    throw ImageError("an array of " + shown(sides) + ": " +
                     (last ? "either end may" : "no end can") + " be the " +
                     std::to_string(channels) +
                     " of the network; save it as [height, width, channels]");
  }
  return last ? 2 : 0;
}

}  // namespace

Values read_npy(Bytes file, size_t channels) {
  const Header header = read_header(file);
  check_kind(header.kind);
  const std::vector<size_t>& sides = header.sides;
  const bool some = std::find(sides.begin(), sides.end(), 0) == sides.end();
  if ((sides.size() != 2 && sides.size() != 3) || !some) {
    throw ImageError("an array of the sides " + shown(sides) + "; an image has 2 or 3");
  }
  const size_t axis = channel_axis(sides, channels);
  const size_t rows = axis == 0 ? 1 : 0, columns = rows + 1;
  check_pixels(sides[columns], sides[rows]);
  Values made;
  made.height = sides[rows];
  made.width = sides[columns];
  made.channels = axis == 3 ? 1 : sides[axis];
  const std::string type = header.kind.substr(1);
  const size_t width = type == "u1" ? 1 : type == "f4" ? 4 : 2;
  const Bytes data = file.part(header.end);
  if (data.size() / width < made.count()) damaged("it ends within its values");
  // How far apart neighbours of each side lie, in values.
  std::vector<size_t> steps(sides.size());
  size_t step = 1;
  for (size_t i = 0; i < sides.size(); ++i) {
    const size_t at = header.columns_first ? i : sides.size() - 1 - i;
    steps[at] = step;
    step *= sides[at];
  }
  const bool is_float = type == "f4", is_signed = type == "i2", big = header.kind[0] == '>';
  if (is_float) made.floats.reserve(made.count());
  if (!is_float) made.integers.reserve(made.count());
  for (size_t y = 0; y < made.height; ++y) {
    for (size_t x = 0; x < made.width; ++x) {
      for (size_t c = 0; c < made.channels; ++c) {
        const size_t at = y * steps[rows] + x * steps[columns] + (axis == 3 ? 0 : c * steps[axis]);
        const auto bits = static_cast<uint32_t>(*data.number(at * width, width, big));
        if (is_float) {
          float value = 0;
          std::memcpy(&value, &bits, sizeof value);
          made.floats.push_back(value);
        } else {
          made.integers.push_back(is_signed ? static_cast<int16_t>(bits)
                                            : static_cast<int32_t>(bits));
        }
      }
    }
  }
  made.check_finite();
  made.shown = type == "u1";
  made.least = is_signed ? -32768 : 0;
  made.most = width == 1 ? 255 : is_signed ? 32767 : 65535;
  made.what = std::string("an array of ") + (width == 1  ? "uint8"
                                             : is_float  ? "float32"
                                             : is_signed ? "int16"
                                                         : "uint16");
  return made;
}

}  // namespace densepath
