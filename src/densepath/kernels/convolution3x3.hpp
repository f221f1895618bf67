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
  // Outputs that are computed together, and the inputs that their groups read.
  struct Slice {
    int first_input, inputs, first_output;
    Packed weights;     // [9 · inputs, outputs]
    PackedPairs pairs;  // in place of `weights`, in bfloat16
  };
  int inputs = 0, outputs = 0, stride = 1;
  Norm norm;  // of one that reads the state itself
  std::vector<Slice> slices;
  std::vector<Packed> points;      // for Winograd's way, where it is prepared
  Grouped<FloatEntry> grouped;     // in place of `slices`
  Grouped<PairEntry> paired;       // the same in bfloat16
  GroupedSquares grouped_squares;  // in place of that, with AMX
  Squared squared;                 // in place of `points` and `slices`, with AMX
  Floats bias;
  bool relu = false;

  // Whether `grouped` computes it; in bfloat16 `paired`, or with AMX `grouped_squares`.
  static bool is_grouped(int inputs, int outputs, int groups) {
    return inputs == outputs && groups > 1;
  }

  // `taps` [3, 3, inputs / groups, outputs]. In bfloat16 is all but Winograd's way, which is
  // quicker in float32 than plain products are in pairs; but not than AMX.
  void set_weights(const float* taps, int groups, bool winograd, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::bfloat16 && multiplies_taps(groups, stride)) {
      squared = Squared(taps, inputs, outputs);
      return;
    }
    if (winograd) points = transform_weights(taps, inputs, outputs);
    const int in = inputs / groups, out = outputs / groups;
    if (is_grouped(inputs, outputs, groups)) {
      if (arithmetic == Arithmetic::float32)
        grouped = {taps, outputs, in, stride};
      else if (GroupedSquares::takes(in))
        grouped_squares = GroupedSquares(taps, outputs, in, stride);
      else
        paired = {taps, outputs, in, stride};
      return;
    }
    const int together = groups == 1 ? outputs : out % PANEL == 0 ? PANEL : LANES;
    for (int j = 0; j < outputs; j += together) {
      const int end = std::min(outputs, j + together), first_group = j / out;
      const int first = first_group * in, count = ((end - 1) / out + 1) * in - first;
      std::vector<float> dense(static_cast<size_t>(9) * count * (end - j));
      for (int tap = 0; tap < 9; ++tap)
        for (int i = 0; i < in; ++i)
          for (int o = j; o < end; ++o) {
            const int row = tap * count + (o / out - first_group) * in + i;
            dense[static_cast<size_t>(row) * (end - j) + o - j] =
                taps[(static_cast<size_t>(tap) * in + i) * outputs + o];
          }
      Slice slice{first, count, j, {}, {}};
      if (arithmetic == Arithmetic::bfloat16 && groups == 1)
        slice.pairs = PackedPairs(dense.data(), 9 * count, end - j);
      else
        slice.weights = Packed(dense.data(), 9 * count, end - j);
      slices.push_back(std::move(slice));
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
      for (const Slice& slice : slices) {
        const Ending ending{bias ? bias.get() + slice.first_output : nullptr, false, relu};
        const auto pack = [&](int first, int count, auto* left) {
          lay_out(in, corners, slice, rows, first, count, left);
        };
        float* to = out.at(p) + column + slice.first_output;
        if (slice.pairs)
          product(slice.pairs, rows, pack, to, out.ld, ending, own.left.get());
        else
          product(slice.weights, rows, pack, to, out.ld, ending, own.left.get());
      }
    }
  }

  template <class Number>
  static void lay_out(const Padded& in, const float* const* corners, const Slice& slice, int rows,
                      int first, int count, Number* to) {
    for (int done = 0; done < count;) {
      const int tap = (first + done) / slice.inputs, c = (first + done) % slice.inputs;
      const int length = std::min(slice.inputs - c, count - done);
      const long offset =
          (static_cast<long>(tap / 3) * in.whole_width + tap % 3) * in.ld + slice.first_input + c;
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
