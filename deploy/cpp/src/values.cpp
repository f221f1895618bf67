#include "values.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "exif.hpp"

namespace densepath {
namespace {

// Integers of so many values have a table of them all.
constexpr int64_t MOST_TABLE = 1 << 16;

// The pixels with so many channels: gray and RGB become one another.
Image with_channels(Image image, size_t channels, const std::string& what) {
  if (image.channels == channels) return image;
  if (image.channels == 3 && channels == 1) return to_gray(image);
  if (image.channels == 1 && channels == 3) {
    Image rgb{image.height, image.width, 3, {}};
    rgb.pixels.reserve(image.pixels.size() * 3);
    for (const uint8_t pixel : image.pixels) rgb.pixels.insert(rgb.pixels.end(), 3, pixel);
    return rgb;
  }
  throw ImageError(what + " with " + std::to_string(image.channels) +
                   (image.channels == 1 ? " channel" : " channels") + ", and the network takes " +
                   std::to_string(channels) +
                   "; give it a TIFF with a page for each, or an .npy array");
}

// The two values of the nearest ranks, in the order of the stored numbers.
template <typename Number>
std::pair<double, double> values_at(std::vector<Number> numbers, size_t first, size_t second) {
  const auto at = [&](size_t rank) {
    const auto place = numbers.begin() + static_cast<ptrdiff_t>(rank);
    std::nth_element(numbers.begin(), place, numbers.end());
    return static_cast<double>(*place);
  };
  const double one = at(first);
  return {one, at(second)};
}

}  // namespace

void Values::check_finite() const {
  for (const float value : floats) {
    if (!std::isfinite(value)) throw ImageError("floating-point pixels that are not finite");
  }
}

Image Values::to_image(const ReadAs& read_as) const {
  Image image{height, width, channels, to_bytes(read_as.intensity)};
  if (inverted) {
    for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(255 - pixel);
  }
  for (size_t i = 0; i < white.size(); ++i) {
    if (white[i] == 0) continue;
    for (size_t c = 0; c < channels; ++c) image.pixels[i * channels + c] = 255;
  }
  return upright(with_channels(std::move(image), read_as.channels, what), orientation);
}

std::vector<uint8_t> Values::to_bytes(const std::optional<Intensity>& intensity) const {
  if (shown && (!intensity || intensity->kind == "file")) {
    std::vector<uint8_t> bytes(integers.size());
    std::transform(integers.begin(), integers.end(), bytes.begin(),
                   [](int32_t value) { return static_cast<uint8_t>(value); });
    return bytes;
  }
  if (!intensity) {
    throw ImageError(what +
                     ", not of 8 bits, and the network says nothing of intensity: which values are "
                     "black and white? docs/data.md has the setting");
  }
  if (intensity->kind == "percentiles") {
    const auto [low, high] = percentiles(intensity->values[0], intensity->values[1]);
    return through(line(low, high));
  }
  if (intensity->kind == "file") {
    if (own) return through(*own);
    if (has_floats()) {
      throw ImageError(what +
                       ": floats have no range of their own; set intensity to a range, a window or "
                       "percentiles");
    }
    return through(line(static_cast<double>(least), static_cast<double>(most)));
  }
  const auto [low, high] = *intensity->span();
  if (shown && !(low >= 0 && high <= 255)) {
    throw ImageError(what + " has values of 0 to 255, and the network's intensity is " +
                     intensity->to_text() + ", for files of measured values; give it such a file");
  }
  return through(line(low, high));
}

std::vector<uint8_t> Values::through(const Course& course) const {
  std::vector<uint8_t> bytes(count());
  const auto scaled = [this](double stored) { return stored * slope + intercept; };
  if (has_floats()) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = course(scaled(double{floats[i]}));
    return bytes;
  }
  if (most - least >= MOST_TABLE) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = course(scaled(static_cast<double>(integers[i] + bias)));
    }
    return bytes;
  }
  std::vector<uint8_t> every;
  for (int64_t value = least; value <= most; ++value) {
    every.push_back(course(scaled(static_cast<double>(value))));
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = every[static_cast<size_t>(integers[i] - least)];
  }
  return bytes;
}

std::pair<double, double> Values::percentiles(double low, double high) const {
  const size_t last = count() - 1;
  const auto rank = [&](double share) {
    const auto at = static_cast<size_t>(std::nearbyint(share / 100 * static_cast<double>(last)));
    return slope < 0 ? last - at : at;
  };
  auto [first, second] = has_floats() ? values_at(floats, rank(low), rank(high))
                                      : values_at(integers, rank(low), rank(high));
  const auto scaled = [this](double stored) {
    return (stored + static_cast<double>(bias)) * slope + intercept;
  };
  return {scaled(first), scaled(second)};
}

Values shown_values(Image image, const std::string& what) {
  Values made;
  made.height = image.height;
  made.width = image.width;
  made.channels = image.channels;
  made.integers.assign(image.pixels.begin(), image.pixels.end());
  made.most = 255;
  made.what = what;
  made.shown = true;
  return made;
}

Course line(double low, double high) {
  return [low, high](double value) -> uint8_t {
    if (!(low < high)) return value > low ? 255 : 0;
    const double scaled = (value - low) * (255.0 / (high - low));
    return static_cast<uint8_t>(std::nearbyint(std::clamp(scaled, 0.0, 255.0)));
  };
}

Course sigmoid(double centre, double width) {
  return [centre, width](double value) -> uint8_t {
    const double power = -4.0 * (value - centre) / width;
    const double made = power > 700 ? 0.0 : 255.0 / (1.0 + std::exp(power));
    return static_cast<uint8_t>(std::nearbyint(made));
  };
}

Course table(int64_t first, std::vector<uint8_t> outputs) {
  return [first, outputs = std::move(outputs)](double value) {
    const double at = std::nearbyint(value) - static_cast<double>(first);
    const auto last = static_cast<double>(outputs.size() - 1);
    return outputs[static_cast<size_t>(std::clamp(at, 0.0, last))];
  };
}

// Pillow's L24, (19595 R + 38470 G + 7471 B + 32768) / 65536.
Image to_gray(const Image& image) {
  Image gray{image.height, image.width, 1, {}};
  gray.pixels.resize(image.height * image.width);
  const uint8_t* rgb = image.pixels.data();
  for (uint8_t& pixel : gray.pixels) {
    const uint32_t sum = rgb[0] * 19595U + rgb[1] * 38470U + rgb[2] * 7471U + 0x8000U;
    pixel = static_cast<uint8_t>(sum >> 16);
    rgb += 3;
  }
  return gray;
}

}  // namespace densepath
