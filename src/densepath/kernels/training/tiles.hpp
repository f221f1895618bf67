// Tiles of four by four pixels of the 3×3 convolutions of a training step: from the map to the 36
// points of F(4×4, 3×3), and back.
#pragma once

#include "pixels.hpp"
#include "tile_weights.hpp"

namespace densepath {

constexpr int TOGETHER = (LANES == 16 ? 2 : 4) * MR;  // tiles whose products are taken together

struct Tiling {
  int images, height, width, down, across;
  template <class Number>
  explicit Tiling(const MapsOf<Number>& maps)
      : images(maps.images),
        height(maps.height),
        width(maps.width),
        down((maps.height + TILE - 1) / TILE),
        across((maps.width + TILE - 1) / TILE) {}
  int64_t count() const { return static_cast<int64_t>(images) * down * across; }
};

// A tile of four by four pixels, of which `high` × `wide` lie in the map.
struct Tile {
  int image, y, x, high, wide;
  int64_t pixel;  // its first
  Tile(const Tiling& all, int64_t number)
      : image(static_cast<int>(number / (all.down * all.across))),
        y(static_cast<int>(number / all.across % all.down) * TILE),
        x(static_cast<int>(number % all.across) * TILE),
        high(std::min(TILE, all.height - y)),
        wide(std::min(TILE, all.width - x)),
        pixel((static_cast<int64_t>(image) * all.height + y) * all.width + x) {}
};

// Values of some tiles at the 36 points: [36, TOGETHER, channels].
struct Points {
  long apart, between;  // floats between two tiles, and between two points
  Scratch data;
  explicit Points(int channels)
      : apart(round_up(channels, LANES)), between(TOGETHER * apart + 16), data(POINTS * between) {}
  float* tile(int number) const { return data.get() + number * apart; }
  float* point(int number) const { return data.get() + number * between; }
};

// Which of six by six pixels around a tile lie in the map.
struct Extent {
  int top, bottom, left, right;  // [top, bottom) × [left, right)
  Extent(const Tiling& all, const Tile& tile)
      : top(tile.y == 0),
        bottom(std::min(REACH, all.height - tile.y + 1)),
        left(tile.x == 0),
        right(std::min(REACH, all.width - tile.x + 1)) {}
  bool whole() const { return !top && !left && bottom == REACH && right == REACH; }
};

// Six by six pixels around a tile, in whole vectors of channels, with zeros outside of the map.
struct Surroundings {
  long apart;
  Scratch data;
  explicit Surroundings(int channels)
      : apart(round_up(channels, LANES)), data(REACH * REACH * apart) {}

  template <class Source>
  void read(const Source& source, const Tiling& all, const Tile& tile) const {
    const Extent extent(all, tile);
    if (!extent.whole()) std::memset(data.get(), 0, sizeof(float) * REACH * REACH * apart);
    const int64_t first = tile.pixel - all.width - 1;
    for (int c = 0; c < source.maps.channels; c += LANES) {
      const auto read = source.reader(c, source.maps.channels - c);
      for (int y = extent.top; y < extent.bottom; ++y)
        for (int x = extent.left; x < extent.right; ++x)
          store(data.get() + (y * REACH + x) * apart + c,
                read(first + static_cast<int64_t>(y) * all.width + x));
    }
  }
};

// Bᵀ d B of LANES channels, where value(y, x) is one of the 36.
template <class Value>
inline __attribute__((always_inline)) void enter_points(const Value& value, float* to,
                                                        long between) {
  Vector half[REACH][REACH];
#pragma GCC unroll 1
  for (int x = 0; x < REACH; ++x) {
    Vector d[REACH], out[REACH];
#pragma GCC unroll 6
    for (int y = 0; y < REACH; ++y) d[y] = value(y, x);
    transform_input(d, out);
#pragma GCC unroll 6
    for (int y = 0; y < REACH; ++y) half[y][x] = out[y];
  }
#pragma GCC unroll 1
  for (int y = 0; y < REACH; ++y, to += REACH * between) {
    Vector out[REACH];
    transform_input(half[y], out);
#pragma GCC unroll 6
    for (int x = 0; x < REACH; ++x) store(to + x * between, out[x]);
  }
}

inline void enter_surroundings(const Surroundings& from, int channels, float* to, long between) {
  for (int c = 0; c < channels; c += LANES)
    enter_points(
        [&](int y, int x) { return load(from.data.get() + (y * REACH + x) * from.apart + c); },
        to + c, between);
}

// A tile of the activations, straight from the map. At its border the nearest pixel is read, and
// then forgotten.
template <bool WHOLE, class Number>
inline void enter_map(const ActivationsOf<Number>& input, const Extent& extent, const Number* from,
                      float* to, long between) {
  const auto& maps = input.maps;
  const long line = maps.width * maps.ld;
  const Places none{}, all = none - 1;
  for (int c = 0; c < maps.channels; c += LANES) {
    const Vector scale = load(input.norm.scale.get() + c);
    const Vector shift = load(input.norm.shift.get() + c);
    const int own = maps.channels - c;
    enter_points(
        [&](int y, int x) {
          if (WHOLE) return relu(load_own(from + y * line + x * maps.ld, c, own) * scale + shift);
          const int row = std::clamp(y, extent.top, extent.bottom - 1);
          const int column = std::clamp(x, extent.left, extent.right - 1);
          const Vector value = load_own(from + row * line + column * maps.ld, c, own);
          const Places kept = row == y && column == x ? all : none;
          return (Vector)((Places)relu(value * scale + shift) & kept);
        },
        to + c, between);
  }
}

template <class Number>
inline void enter_activations(const ActivationsOf<Number>& input, const Tiling& all,
                              const Tile& tile, float* to, long between) {
  const Extent extent(all, tile);
  const Number* from = input.maps.at(tile.pixel - all.width - 1);
  if (extent.whole())
    enter_map<true>(input, extent, from, to, between);
  else
    enter_map<false>(input, extent, from, to, between);
}

// A dy Aᵀ: the middle of what stands around a tile.
inline void spread_tile(const Surroundings& around, int channels, float* to, long between) {
  for (int c = 0; c < channels; c += LANES) {
    const float* from = around.data.get() + (REACH + 1) * around.apart + c;
    Vector half[REACH][TILE];
    for (int x = 0; x < TILE; ++x) {
      Vector d[TILE], out[REACH];
      for (int y = 0; y < TILE; ++y) d[y] = load(from + (y * REACH + x) * around.apart);
      spread_output(d, out);
      for (int y = 0; y < REACH; ++y) half[y][x] = out[y];
    }
    for (int y = 0; y < REACH; ++y) {
      Vector out[REACH];
      spread_output(half[y], out);
      for (int x = 0; x < REACH; ++x) store(to + (y * REACH + x) * between + c, out[x]);
    }
  }
}

// The gradient behind the ReLU of a tile, Aᵀ m A, to where it goes; of a whole tile, or not.
template <bool WHOLE, class Number>
inline void leave_masked(const float* from, long between, const Tile& tile,
                         const MaskedOf<Number>& masked, Totals& totals) {
  const int channels = masked.x.channels, width = masked.x.width;
  for (int c = 0; c < channels; c += LANES) {
    const auto write = masked.writer(c, first_lanes(channels - c));
    Vector half[TILE][REACH], gradient{}, product{};
#pragma GCC unroll 1
    for (int x = 0; x < REACH; ++x) {
      Vector m[REACH], out[TILE];
#pragma GCC unroll 6
      for (int y = 0; y < REACH; ++y) m[y] = load(from + (y * REACH + x) * between + c);
      transform_output(m, out);
#pragma GCC unroll 4
      for (int y = 0; y < TILE; ++y) half[y][x] = out[y];
    }
#pragma GCC unroll 1
    for (int y = 0; y < (WHOLE ? TILE : tile.high); ++y) {
      Vector out[TILE];
      transform_output(half[y], out);
      const int64_t pixel = tile.pixel + static_cast<int64_t>(y) * width;
#pragma GCC unroll 4
      for (int x = 0; x < TILE; ++x)
        if (WHOLE || x < tile.wide) write(pixel + x, out[x], gradient, product);
    }
    totals.add(c, channels - c, gradient, product);
  }
}

}  // namespace densepath
