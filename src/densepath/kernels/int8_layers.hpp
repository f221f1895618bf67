// The INT8 forms of the layers: maps of features stay floats, what a product reads is bytes.
//
// A 1×1 convolution makes levels of floats while it lays its input out, in place of the float
// form's BatchNorm and ReLU. A 3×3 reads a padded map of levels where it stands: the convolution
// before it has written levels, and a border of zeros is a border of zeros.
#pragma once

#include "int8.hpp"
#include "int8_grouped.hpp"
#include "layers.hpp"

namespace densepath {

using ByteMap = MapOf<uint8_t>;
using PaddedBytes = PaddedOf<uint8_t>;

// What follows an INT8 product; the scales of levels that the next layer reads are in it already.
struct ByteEnding {
  Floats scale, bias;
  bool relu = false, levels = false;
  Finish at(int column, bool add) const {
    return {scale.get() + column, bias.get() + column, add, relu, levels};
  }
};

// A 3×3 convolution with one pixel of padding, in groups or whole, on a padded map of levels.
struct ByteConvolution {
  int inputs = 0, outputs = 0, stride = 1;
  int group_width = 0, group_room = 0;  // channels of a group, and the bytes that they take
  long ld = 0;                          // bytes of a pixel of the padded map
  Levels entry;                         // of the floats before it, where those are not levels
  PackedBytes whole;                    // the weights of a convolution without groups
  Grouped<ByteEntry> grouped;           // those of one that has them
  ByteEnding ending;

  // Of `inputs`, `outputs` and `stride`: `weights` [outputs, inputs / groups, 9].
  void set_weights(const int8_t* weights, int groups) {
    group_width = inputs / groups;
    group_room = round_up(group_width, 4);
    ld = static_cast<long>(groups) * group_room;
    if (groups == 1) {
      const std::vector<int8_t> held = laid_out(weights, outputs, inputs, 9, group_room);
      whole = PackedBytes(held.data(), 9 * group_room / 4, outputs);
      return;
    }
    std::vector<float> taps(static_cast<size_t>(9) * group_width * outputs);
    for (int o = 0; o < outputs; ++o)
      for (int i = 0; i < group_width; ++i)
        for (int t = 0; t < 9; ++t)
          taps[(static_cast<size_t>(t) * group_width + i) * outputs + o] = *weights++;
    grouped = {taps.data(), inputs, outputs, groups, stride};
  }

  bool spread() const { return group_room != group_width; }

  // One pixel's channels into the padded map, each group in its own room.
  void place(const uint8_t* from, uint8_t* to) const {
    if (!spread()) {
      std::memcpy(to, from, inputs);
      return;
    }
    for (int c = 0; c < inputs; c += group_width, to += group_room)
      std::memcpy(to, from + c, group_width);
  }

  // What it reads of a map of this size.
  PaddedBytes padded(uint8_t* data, int height, int width) const {
    return PaddedBytes::of(data, height, width, ld);
  }

  // Floats as levels → the inside of what it reads.
  void enter(const Map& in, const PaddedBytes& to, Part part, Scratch& own) const {
    uint8_t* held = own.level(inputs + 64);
    int low, high;
    part.share(in.pixels(), low, high);
    for (int p = low; p < high; ++p) {
      entry.enter(in.at(p), inputs, held);
      place(held, to.at(p / in.width, p % in.width));
    }
  }

  // Columns of `out` from `column` on.
  void run(const PaddedBytes& in, const Map& out, int column, Part part) const {
    run_rows(in, out, column, part);
  }
  void run(const PaddedBytes& in, const ByteMap& out, Part part) const {
    run_rows(in, out, 0, part);
  }

 private:
  template <class T>
  void run_rows(const PaddedBytes& in, const MapOf<T>& out, int column, Part part) const {
    if (grouped)
      return grouped.run(in, out.height, out.width, part, [&](int y, int first, int columns) {
        auto* to = reinterpret_cast<uint8_t*>(out.at(y * out.width) + column + first);
        return ByteTarget{to, static_cast<long>(out.ld * sizeof(T)), columns,
                          ending.at(first, false)};
      });
    const int pieces = (out.width + MR - 1) / MR;
    int low, high;
    part.share(out.height * pieces, low, high);
    const long line = in.whole_width * in.ld;
    Row rows[MR];
    for (int u = low; u < high; ++u) {
      const int y = u / pieces, x = out.width * (u % pieces) / pieces;
      const int count = out.width * (u % pieces + 1) / pieces - x;
      for (int r = 0; r < count; ++r) rows[r] = out.at(y * out.width + x + r) + column;
      const Strip strip{in.at(y * stride - 1, x * stride - 1),
                        stride * in.ld,
                        static_cast<int>(3 * in.ld / 4),
                        1,
                        3,
                        0,
                        line};
      multiply_bytes(whole, strip, count, ending.at(0, false), rows);
    }
  }
};

// BN-ReLU-1×1, or 1×1 alone, on levels.
struct BytePointwise {
  int inputs = 0;
  Levels entry;  // what the BatchNorm, the ReLU and the quantisation do; not where levels come in
  PackedBytes weights;
  ByteEnding ending;
  Reading reading = Reading::every_pixel;

  // Columns of `out` from `column` on; added to what stands there if `add`.
  void run(const Map& in, const Map& out, int column, bool add, Part part, Scratch& own) const {
    const auto row_of = [&](int p) -> Row { return out.at(p) + column; };
    run_rows(in, out.width, out.pixels(), row_of, add, part, own, [](int, int) {});
  }

  // Of levels, to the same pixels.
  void run(const ByteMap& in, const Map& out, int column, bool add, Part part) const {
    const int total = in.pixels(), step = part.rows(total);
    int low, high;
    part.share((total + step - 1) / step, low, high);
    Row rows[ROWS];
    for (int u = low; u < high; ++u) {
      const int p = u * step, count = std::min(step, total - p);
      for (int r = 0; r < count; ++r) rows[r] = out.at(p + r) + column;
      multiply_bytes(weights, {in.at(p), in.ld, weights.quads}, count, ending.at(0, add), rows);
    }
  }

  // The inside of a padded map of floats.
  void run(const Map& in, const Padded& out, Part part, Scratch& own) const {
    const auto row_of = [&](int p) -> Row { return out.at(p / in.width, p % in.width); };
    run_rows(in, in.width, in.pixels(), row_of, false, part, own, [](int, int) {});
  }

  // The inside of the padded map of levels that `next` reads.
  void run(const Map& in, const PaddedBytes& out, const ByteConvolution& next, Part part,
           Scratch& own) const {
    const auto at = [&](int p) { return out.at(p / in.width, p % in.width); };
    if (!next.spread()) {
      const auto row_of = [&](int p) -> Row { return at(p); };
      return run_rows(in, in.width, in.pixels(), row_of, false, part, own, [](int, int) {});
    }
    const long ld = round_up(next.inputs, 64);
    uint8_t* held = own.between(ROWS * ld);
    const auto row_of = [&](int p) -> Row { return held + p % ROWS * ld; };
    run_rows(in, in.width, in.pixels(), row_of, false, part, own, [&](int p, int count) {
      for (int r = p; r < p + count; ++r) next.place(held + r % ROWS * ld, at(r));
    });
  }

 private:
  // row_of(pixel) of the output, `width` pixels a line and `total` in all; after(pixel, count) when
  // so many rows are written, at most ROWS.
  template <class RowOf, class After>
  void run_rows(const Map& in, int width, int total, const RowOf& row_of, bool add, Part part,
                Scratch& own, const After& after) const {
    const long lda = round_up(inputs, 64) + 64;
    const int step = part.rows(total);
    int low, high;
    part.share((total + step - 1) / step, low, high);
    uint8_t* left = own.level(static_cast<size_t>(ROWS) * lda);
    Row rows[ROWS];
    for (int u = low; u < high; ++u) {
      const int p = u * step, count = std::min(step, total - p);
      for (int r = 0; r < count; ++r) {
        lay_out(in, width, p + r, left + r * lda);
        rows[r] = row_of(p + r);
      }
      multiply_bytes(weights, {left, lda, weights.quads}, count, ending.at(0, add), rows);
      after(p, count);
    }
  }
  void lay_out(const Map& in, int width, int p, uint8_t* to) const {
    if (reading == Reading::every_pixel) return entry.enter(in.at(p), inputs, to);
    const float* from = in.at(p / width * 2 * in.width + p % width * 2);
    if (reading == Reading::every_second) return entry.enter(from, inputs, to);
    entry.enter_average(from, in.ld, in.width * in.ld, inputs, to);
  }
};

}  // namespace densepath
