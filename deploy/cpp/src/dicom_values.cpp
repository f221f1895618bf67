#include "dicom_values.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "text.hpp"

namespace densepath {
namespace {

using namespace dicom;

[[noreturn]] void damaged(const std::string& what) {
  throw ImageError(std::string(DAMAGED) + ": " + what);
}

struct Table {
  int64_t first = 0;
  std::vector<uint16_t> outputs;
  size_t bits = 16;

  uint16_t at(int64_t value) const {
    const auto last = static_cast<int64_t>(outputs.size()) - 1;
    return outputs[static_cast<size_t>(std::clamp<int64_t>(value - first, 0, last))];
  }
};

Table table_of(const DicomElements& head, bool is_signed, uint32_t descriptor, uint32_t data) {
  const std::vector<uint16_t> words = head.words(descriptor);
  if (words.size() != 3 || words[2] < 8 || words[2] > 16) damaged("a look-up table");
  const size_t count = words[0] == 0 ? size_t{1} << 16 : words[0];
  Table made;
  made.first = is_signed ? static_cast<int16_t>(words[1]) : int64_t{words[1]};
  made.bits = words[2];
  made.outputs = head.words(data);
  if (made.bits == 8 && made.outputs.size() < count) {  // Two outputs in a word.
    const Bytes raw = head.raw(data);
    made.outputs.assign(raw.begin(), raw.end());
  }
  if (made.outputs.size() < count) damaged("a look-up table");
  made.outputs.resize(count);
  return made;
}

// The first look-up table of the file, else its first window; nothing where it has neither.
std::optional<Course> own_course(const DicomElements& head, bool is_signed) {
  if (const auto lut = head.item(VOI_LUT)) {
    const Table found = table_of(*lut, is_signed, LUT, LUT_DATA);
    std::vector<uint8_t> outputs;
    const auto most = static_cast<double>((size_t{1} << found.bits) - 1);
    for (const uint16_t output : found.outputs) {
      const double scaled = std::nearbyint(static_cast<double>(output) * (255.0 / most));
      outputs.push_back(static_cast<uint8_t>(std::min(scaled, 255.0)));
    }
    return table(found.first, std::move(outputs));
  }
  const auto centre = head.number(CENTRE), width = head.number(WIDTH);
  if (!centre || !width) return std::nullopt;
  const std::string said = head.text(FUNCTION), function = said.empty() ? "LINEAR" : said;
  if (function != "LINEAR" && function != "LINEAR_EXACT" && function != "SIGMOID") {
    damaged("its window is of no known function");
  }
  if (function == "LINEAR" ? *width < 1 : *width <= 0) {
    throw ImageError(
        "a DICOM file whose window has no width; set intensity to a range, a window or "
        "percentiles");
  }
  if (function == "SIGMOID") return sigmoid(*centre, *width);
  if (function == "LINEAR_EXACT") return line(*centre - *width / 2, *centre + *width / 2);
  const auto [low, high] = linear_window(*centre, *width);
  return line(low, high);
}

Image image_of(const DicomLayout& layout) {
  Image made{layout.rows, layout.columns, 3, {}};
  made.pixels.reserve(layout.rows * layout.columns * 3);
  return made;
}

Image through_palette(const DicomElements& head, const DicomLayout& layout,
                      const std::vector<int32_t>& numbers) {
  std::vector<Table> colours;
  for (uint32_t i = 0; i < 3; ++i) {
    if (!head.has(PALETTE_DATA + i)) {
      throw ImageError("a DICOM file whose palette is kept in segments, which is not read");
    }
    colours.push_back(table_of(head, layout.is_signed, PALETTE + i, PALETTE_DATA + i));
  }
  Image made = image_of(layout);
  for (const int32_t number : numbers) {
    for (const Table& colour : colours) {
      made.pixels.push_back(static_cast<uint8_t>(colour.at(number) >> (colour.bits - 8)));
    }
  }
  return made;
}

// RGB of YBR_FULL: PS3.3, C.7.6.3.1.2, whose inverse is JPEG's.
Image rgb_of_ybr(const DicomLayout& layout, const std::vector<int32_t>& numbers) {
  Image made = image_of(layout);
  for (size_t i = 0; i < numbers.size(); i += 3) {
    const double y = numbers[i], blue = numbers[i + 1] - 128.0, red = numbers[i + 2] - 128.0;
    for (const double value :
         {y + 1.402 * red, y - 0.344136286 * blue - 0.714136286 * red, y + 1.772 * blue}) {
      made.pixels.push_back(static_cast<uint8_t>(std::nearbyint(std::clamp(value, 0.0, 255.0))));
    }
  }
  return made;
}

}  // namespace

Values dicom_values(const DicomElements& head, const DicomLayout& layout,
                    std::vector<int32_t> numbers) {
  if (layout.photometric == "PALETTE COLOR") {
    return shown_values(through_palette(head, layout, numbers), "a DICOM file of colours");
  }
  if (layout.samples == 3) {
    Image image = image_of(layout);
    if (layout.photometric == "RGB") {
      for (const int32_t number : numbers) image.pixels.push_back(static_cast<uint8_t>(number));
    } else {
      image = rgb_of_ybr(layout, numbers);
    }
    return shown_values(std::move(image), "a DICOM file in colour");
  }
  Values made;
  made.height = layout.rows;
  made.width = layout.columns;
  made.slope = head.number(SLOPE).value_or(1.0);
  made.intercept = head.number(INTERCEPT).value_or(0.0);
  const int64_t half = int64_t{1} << (layout.stored - 1);
  int64_t low = layout.is_signed ? -half : 0, high = layout.is_signed ? half - 1 : 2 * half - 1;
  made.least = layout.is_signed ? -32768 : 0;
  made.most = layout.is_signed ? 32767 : layout.allocated == 8 ? 255 : 65535;
  if (const auto lut = head.item(MODALITY_LUT)) {
    const Table found = table_of(*lut, layout.is_signed, LUT, LUT_DATA);
    for (int32_t& number : numbers) number = found.at(number);
    made.slope = 1;
    made.intercept = 0;
    low = made.least = 0;
    high = (int64_t{1} << found.bits) - 1;
    made.most = 65535;
  }
  made.integers = std::move(numbers);
  made.what = "a DICOM file of " + std::to_string(layout.stored) + " bits";
  made.inverted = layout.photometric == "MONOCHROME1";
  const double one = static_cast<double>(low) * made.slope + made.intercept;
  const double other = static_cast<double>(high) * made.slope + made.intercept;
  const double least = std::min(one, other);
  made.own = own_course(head, least < 0);
  if (!made.own) made.own = line(least, std::max(one, other));
  return made;
}

}  // namespace densepath
