#include "preprocess.hpp"

#include <algorithm>
#include <cmath>

#include "decode.hpp"

namespace densepath {
namespace {

constexpr size_t SPARE = 64;  // SPARE in resize.hpp
constexpr double WEIGHT = 1 << 22;
constexpr double CUBIC_A = -0.5;
constexpr int COEFFICIENT = 2048;

using Pixels = std::vector<uint8_t>;

// One side of the resizing: `old` pixels, of which those between `low` and `high` become `target`;
// of these the `count` from `first` on are kept.
struct Side {
  size_t old, target, first, count;
  double low = 0, high = static_cast<double>(old);
};

struct Place {
  Side rows, columns;

  bool is_small() const { return rows.target * columns.target <= MAX_PIXELS; }
  bool is_copy() const { return rows.target == rows.old && columns.target == columns.old; }
};

// Height and width that the image gets, and the crop's corner. `Preprocess.place`
Place place(const Preprocess& p, size_t height, size_t width) {
  size_t target_height = p.height, target_width = p.width;
  if (p.resize_short > 0) {
    const auto longer = static_cast<double>(std::max(height, width));
    const auto shorter = static_cast<double>(std::min(height, width));
    const auto resized = static_cast<double>(p.resize_short);
    const double side = p.rounds_side ? std::nearbyint(longer * (resized / shorter))
                                      : std::trunc(resized * longer / shorter);
    const auto whole = static_cast<size_t>(side);
    // Where the crop is not square its long side may not fit: then the image is stretched.
    target_height = std::max(height <= width ? p.resize_short : whole, p.height);
    target_width = std::max(height <= width ? whole : p.resize_short, p.width);
  }
  const auto corner = [&](size_t target, size_t size) {
    const double half = static_cast<double>(target - size) / 2;
    return static_cast<size_t>(p.floors_corner ? std::floor(half) : std::nearbyint(half));
  };
  return {{height, target_height, corner(target_height, p.height), p.height},
          {width, target_width, corner(target_width, p.width), p.width}};
}

// Pillow's `bilinear_filter` and `bicubic_filter`.
double kernel(double x, bool cubic) {
  x = std::abs(x);
  if (!cubic) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1;
  return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * CUBIC_A : 0.0;
}

// Source: Pillow 13 `Resample.c`, `precompute_coeffs` and `normalize_coeffs_8bpc`. All taps lie
// inside the image; those that Pillow has not are zero. As `images/resize.py`.
Weights weights_of(const Side& side, bool cubic) {
  const double scale = (side.high - side.low) / static_cast<double>(side.target);
  const double widening = std::max(scale, 1.0), support = (cubic ? 2.0 : 1.0) * widening;
  const auto old = static_cast<int64_t>(side.old);
  std::vector<int64_t> from, to;
  std::vector<double> centres;
  int64_t taps = 0;
  for (size_t i = 0; i < side.count; ++i) {
    const double centre = side.low + (static_cast<double>(side.first + i) + 0.5) * scale;
    centres.push_back(centre);
    from.push_back(std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0));
    to.push_back(std::min(static_cast<int64_t>(centre + support + 0.5), old));
    taps = std::max(taps, to[i] - from[i]);
  }
  Weights made;
  made.taps = static_cast<int>(taps);
  made.weights.resize(side.count * static_cast<size_t>(taps));
  std::vector<double> values(static_cast<size_t>(taps));
  for (size_t i = 0; i < side.count; ++i) {
    const int64_t first = std::min(from[i], old - taps);
    made.first.push_back(static_cast<int32_t>(first));
    double total = 0;
    for (int64_t k = 0; k < taps; ++k) {
      const int64_t at = first + k;
      const double x = (static_cast<double>(at) - centres[i] + 0.5) * (1.0 / widening);
      const bool inside = at >= from[i] && at < to[i];
      values[static_cast<size_t>(k)] = inside ? kernel(x, cubic) : 0.0;
      total += values[static_cast<size_t>(k)];
    }
    for (size_t k = 0; k < values.size(); ++k) {
      const double weight = total != 0 ? values[k] / total : values[k];
      const bool inside =
          first + static_cast<int64_t>(k) >= from[i] && first + static_cast<int64_t>(k) < to[i];
      const double whole = weight < 0 ? -0.5 + weight * WEIGHT : 0.5 + weight * WEIGHT;
      made.weights[i * values.size() + k] = inside ? static_cast<int32_t>(whole) : 0;
    }
  }
  return made;
}

// Bytes of the image from row `top` and column `left` on.
Pixels crop(const Image& image, const Place& at) {
  Pixels made;
  made.reserve(at.rows.count * at.columns.count * image.channels);
  for (size_t y = 0; y < at.rows.count; ++y) {
    const size_t start = ((at.rows.first + y) * image.width + at.columns.first) * image.channels;
    const auto line = image.pixels.begin() + static_cast<ptrdiff_t>(start);
    made.insert(made.end(), line, line + static_cast<ptrdiff_t>(at.columns.count * image.channels));
  }
  return made;
}

// Where the resized image would not fit into memory, only the crop's box of the old one is resized,
// straight to the crop. Pillow keeps a box in float.
void keep_box(Side& side) {
  const double scale = static_cast<double>(side.old) / static_cast<double>(side.target);
  side.low = static_cast<float>(static_cast<double>(side.first) * scale);
  side.high = static_cast<float>(static_cast<double>(side.first + side.count) * scale);
  side.target = side.count;
  side.first = 0;
}

Pixels resize_like_pillow(const Image& image, Place at, bool cubic, Resize resize) {
  if (!at.is_small()) {
    keep_box(at.rows);
    keep_box(at.columns);
  }
  const auto less = [](const Side& side) {
    return static_cast<int64_t>(side.old) - static_cast<int64_t>(side.target);
  };
  const int64_t less_high = less(at.rows), less_wide = less(at.columns);
  const Weights rows = weights_of(at.rows, cubic), columns = weights_of(at.columns, cubic);
  const bool height_first = less_high > 0 && less_high > 2 * less_wide;
  Pixels room(image.pixels.size() + SPARE);
  if (image.channels == 1 || image.channels == 3) {
    std::copy(image.pixels.begin(), image.pixels.end(), room.begin());
    return resize(room.data(), image.width, image.channels, rows, columns, height_first);
  }
  // Other channels one by one, as Python does.
  const size_t channels = image.channels, count = rows.first.size() * columns.first.size();
  Pixels made(count * channels);
  for (size_t c = 0; c < channels; ++c) {
    for (size_t i = 0; i < image.height * image.width; ++i) {
      room[i] = image.pixels[i * channels + c];
    }
    const Pixels one = resize(room.data(), image.width, 1, rows, columns, height_first);
    for (size_t i = 0; i < count; ++i) made[i * channels + c] = one[i];
  }
  return made;
}

// For each new position the two old ones, and the weight of the second in 1/2048.
struct Neighbours {
  std::vector<size_t> first, second;
  std::vector<int32_t> weight;

  explicit Neighbours(const Side& side) {
    const double scale = static_cast<double>(side.old) / static_cast<double>(side.target);
    const auto most = static_cast<int64_t>(side.old) - 1;
    const auto inside = [&](int64_t at) {
      return static_cast<size_t>(std::clamp<int64_t>(at, 0, most));
    };
    for (size_t i = 0; i < side.count; ++i) {
      const double exact = (static_cast<double>(side.first + i) + 0.5) * scale - 0.5;
      const auto at = static_cast<float>(exact);
      const float whole = std::floor(at);
      first.push_back(inside(static_cast<int64_t>(whole)));
      second.push_back(inside(static_cast<int64_t>(whole) + 1));
      weight.push_back(static_cast<int32_t>(std::nearbyint((at - whole) * COEFFICIENT)));
    }
  }
};

// OpenCV's `INTER_LINEAR`: `_resize_like_opencv` in images/preprocess.py.
Pixels resize_like_opencv(const Image& image, const Place& at) {
  const Neighbours rows(at.rows), columns(at.columns);
  const size_t c = image.channels;
  const auto across = [&](size_t row, size_t x, size_t channel) {
    const uint8_t* line = image.pixels.data() + row * image.width * c + channel;
    return (line[columns.first[x] * c] * (COEFFICIENT - columns.weight[x]) +
            line[columns.second[x] * c] * columns.weight[x]) >>
           4;
  };
  Pixels made;
  made.reserve(at.rows.count * at.columns.count * c);
  for (size_t y = 0; y < at.rows.count; ++y) {
    const int32_t v = rows.weight[y];
    for (size_t x = 0; x < at.columns.count; ++x) {
      for (size_t channel = 0; channel < c; ++channel) {
        const int upper = (across(rows.first[y], x, channel) * (COEFFICIENT - v)) >> 16;
        const int lower = (across(rows.second[y], x, channel) * v) >> 16;
        made.push_back(static_cast<uint8_t>((upper + lower + 2) >> 2));
      }
    }
  }
  return made;
}

}  // namespace

std::vector<float> preprocess_image(const Preprocess& preprocess, const Image& image,
                                    Resize resize) {
  const Place at = place(preprocess, image.height, image.width);
  const Pixels pixels =
      at.is_copy() ? crop(image, at)
      : preprocess.interpolation == "cv2_bilinear"
          ? resize_like_opencv(image, at)
          : resize_like_pillow(image, at, preprocess.interpolation == "bicubic", resize);
  const size_t c = image.channels, count = preprocess.height * preprocess.width;
  std::vector<float> input(c * count);
  for (size_t channel = 0; channel < c; ++channel) {
    const double std = preprocess.std[channel];
    const auto scale = static_cast<float>(1 / (255 * std));
    const auto offset = static_cast<float>(-preprocess.mean[channel] / std);
    for (size_t i = 0; i < count; ++i) {
      const float scaled = static_cast<float>(pixels[i * c + channel]) * scale;
      input[channel * count + i] = scaled + offset;
    }
  }
  return input;
}

}  // namespace densepath
