// 3×3 convolutions on a padded map, in whichever way suits their groups, size and arithmetic.
#pragma once

#include <vector>

#include "bfloat16.hpp"
#include "grouped.hpp"
#include "grouped_pairs.hpp"
#include "grouped_squares.hpp"
#include "image_maps.hpp"
#include "squared.hpp"
#include "winograd.hpp"

namespace densepath {

// A BatchNorm that stands in front of a ReLU, as a factor and a summand.
struct Norm {
  Floats scale, shift;
  explicit operator bool() const { return scale != nullptr; }
  Vector apply(Vector x, int channel) const {
    return relu(x * load(scale.get() + channel) + load(shift.get() + channel));
  }
};

// The type of a layer's products; sums are float32.
enum class Arithmetic { float32, bfloat16 };

// A 3×3 convolution with one pixel of padding, in groups or whole.
struct Convolution {
  int inputs = 0, outputs = 0, stride = 1;
  Norm norm;  // of one that reads the state itself
  // One of these: a whole one's weights, [9 · inputs, outputs], or a grouped one's.
  Packed weights;
  PackedPairs pairs;           // in bfloat16
  std::vector<Packed> points;  // for Winograd's way
  Squared squared;             // in bfloat16 with AMX
  Grouped<FloatEntry> grouped;
  Grouped<PairEntry> paired;       // in bfloat16
  GroupedSquares grouped_squares;  // in bfloat16 with AMX
  Floats bias;
  bool relu = false;

  // `taps` [3, 3, inputs / groups, outputs]. In bfloat16 is all but Winograd's way, which is
  // quicker in float32 than plain products are in pairs; but not than AMX.
  void set_weights(const float* taps, int groups, bool winograd, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::bfloat16 && multiplies_taps(groups, stride)) {
      squared = Squared(taps, inputs, outputs);
      return;
    }
    if (groups == 1) {
      if (winograd)
        points = transform_weights(taps, inputs, outputs);
      else if (arithmetic == Arithmetic::bfloat16)
        pairs = PackedPairs(taps, 9 * inputs, outputs);
      else
        weights = Packed(taps, 9 * inputs, outputs);
    } else if (arithmetic == Arithmetic::float32) {
      grouped = {taps, inputs, outputs, groups, stride};
    } else if (inputs == outputs && GroupedSquares::takes(inputs / groups)) {
      grouped_squares = GroupedSquares(taps, outputs, inputs / groups, stride);
    } else {
      paired = {taps, inputs, outputs, groups, stride};
    }
  }

  // What it reads of a map of this size.
  Padded padded(float* data, int height, int width) const {
    if (squared) return squared.padded(data, height, width);
    if (grouped_squares) return grouped_squares.padded(data, height, width);
    if (paired) return paired.padded(data, height, width);
    if (grouped) return grouped.padded(data, height, width);
    return Padded::of(data, height, width, round_up(inputs, LANES));
  }

  // One pixel's inputs, which are lost, → a pixel of that.
  void place(float* from, const Padded& to, int y, int x) const {
    if (grouped_squares) return grouped_squares.place(from, to, y, x);
    if (squared) return squared.place(from, to.at(y, x));
    if (paired) return paired.place(from, to.at(y, x));
    if (grouped) return grouped.place(from, to.at(y, x));
    std::memcpy(to.at(y, x), from, sizeof(float) * inputs);
  }

  // The state, normalised → the inside of what it reads.
  void enter(const Map& in, const Padded& to, Part part, Scratch& own) const {
    float* held = own.result(inputs);
    int low, high;
    part.share(in.pixels(), low, high);
    for (int p = low; p < high; ++p) {
      for (int c = 0; c < inputs; c += LANES) store(held + c, norm.apply(load(in.at(p) + c), c));
      place(held, to, p / in.width, p % in.width);
    }
  }

  // Rounded, by groups in bfloat16.
  void run(const Padded& in, const HalfMap& out, Part part) const {
    if (grouped_squares) return grouped_squares.run(in, out, 0, bias.get(), relu, part);
    paired.run(in, out, 0, bias.get(), relu, part);
  }

  // Columns of `out` from `column` on.
  void run(const Padded& in, const Map& out, int column, Part part, Scratch& own) const {
    if (squared)
      squared.run(in, out, column, bias.get(), relu, part, own);
    else if (!points.empty())
      run_tiles(in, out, column, part, own);
    else if (grouped_squares)
      grouped_squares.run(in, out, column, bias.get(), relu, part);
    else if (paired)
      paired.run(in, out, column, bias.get(), relu, part);
    else if (grouped)
      grouped.run(in, out, column, bias.get(), relu, part);
    else
      run_rows(in, out, column, part, own);
  }

 private:
  void run_rows(const Padded& in, const Map& out, int column, Part part, Scratch& own) const {
    const int step = part.rows(out.pixels());
    int low, high;
    part.share((out.pixels() + step - 1) / step, low, high);
    const float* corners[ROWS];
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, out.pixels() - p);
      for (int r = 0; r < rows; ++r)
        corners[r] = in.at((p + r) / out.width * stride - 1, (p + r) % out.width * stride - 1);
      const Ending ending{bias.get(), false, relu};
      const auto pack = [&](int first, int count, auto* left) {
        lay_out(in, corners, rows, first, count, left);
      };
      if (pairs)
        product(pairs, rows, pack, out.at(p) + column, out.ld, ending, own.left.get());
      else
        product(weights, rows, pack, out.at(p) + column, out.ld, ending, own.left.get());
    }
  }

  template <class Number>
  void lay_out(const Padded& in, const float* const* corners, int rows, int first, int count,
               Number* to) const {
    for (int done = 0; done < count;) {
      const int tap = (first + done) / inputs, c = (first + done) % inputs;
      const int length = std::min(inputs - c, count - done);
      const long offset = (static_cast<long>(tap / 3) * in.whole_width + tap % 3) * in.ld + c;
      // What is copied beyond a tap's channels is overwritten by the next tap.
      for (int r = 0; r < rows; ++r)
        copy(to + static_cast<long>(r) * APART<Number> + done, corners[r] + offset, length);
      done += length;
    }
  }

  void run_tiles(const Padded& in, const Map& out, int column, Part part, Scratch& own) const {
    const int across = (out.width + TILE - 1) / TILE, down = (out.height + TILE - 1) / TILE;
    const int total = across * down;
    const int groups = round_up((total + TILES - 1) / TILES, part.count);
    const int step = (total + groups - 1) / groups;
    const int padded = round_up(outputs, LANES);
    float* left = own.result(static_cast<size_t>(POINTS) * TILES * padded);
    int low, high;
    part.share(groups, low, high);
    for (int g = low; g < high; ++g) {
      const int t = g * step, count = std::min(step, total - t);
      for (int i = 0; i < count; ++i)
        enter_tile(in.at((t + i) / across * TILE - 1, (t + i) % across * TILE - 1),
                   in.whole_width * in.ld, in.ld, inputs, own.entered.get() + i * LDA,
                   static_cast<long>(TILES) * LDA);
      for (int q = 0; q < POINTS && count > 0; ++q)
        multiply(points[q], 0, inputs, own.entered.get() + static_cast<size_t>(q) * TILES * LDA,
                 count, left + static_cast<size_t>(q) * TILES * padded, padded, Ending{});
      for (int i = 0; i < count; ++i) {
        const int y = (t + i) / across * TILE, x = (t + i) % across * TILE;
        leave_tile(left + i * padded, static_cast<long>(TILES) * padded, outputs,
                   out.at(y * out.width + x) + column, out.width * out.ld, out.ld,
                   std::min(TILE, out.height - y), std::min(TILE, out.width - x));
      }
    }
  }
};

}  // namespace densepath
