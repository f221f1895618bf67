// 3×3 convolutions of any stride and any groups as plain products: the taps of some pixels are laid
// out side by side. For what neither `tiles.hpp` nor `bands.hpp` is for.
#pragma once

#include <vector>

#include "pixels.hpp"
#include "products.hpp"
#include "shape.hpp"
#include "team.hpp"

namespace densepath {

struct Tap {
  int number, down, across;  // of the nine; from a pixel of the grid to the one that is read
};

// The pixels of a product's rows, and what each reads: (y · step + down, x · step + across).
struct Grid {
  int images, height, width, step;
  std::vector<Tap> taps;
  int64_t rows() const { return static_cast<int64_t>(images) * height * width; }
  int first_down = 0, first_across = 0, apart = 1;  // where its pixels stand in a map
  template <class Number>
  int64_t pixel(int64_t row, const MapsOf<Number>& maps) const {
    const int64_t x = row % width, y = row / width % height, image = row / width / height;
    return (image * maps.height + y * apart + first_down) * maps.width + x * apart + first_across;
  }
};

// Of the outputs, who read the inputs.
inline Grid output_grid(const Shape& shape, int images) {
  Grid grid{images, shape.high, shape.wide, shape.stride, {}};
  for (int tap = 0; tap < 9; ++tap) grid.taps.push_back({tap, tap / 3 - 1, tap % 3 - 1});
  return grid;
}

// Of the inputs, who get their gradients from the outputs: with a stride, each of these grids has
// taps of its own.
inline std::vector<Grid> input_grids(const Shape& shape, int images) {
  std::vector<Grid> grids;
  const int s = shape.stride;
  for (int down = 0; down < std::min(s, shape.height); ++down)
    for (int across = 0; across < std::min(s, shape.width); ++across) {
      Grid grid{
          images, (shape.height - down + s - 1) / s, (shape.width - across + s - 1) / s, 1, {}};
      grid.first_down = down, grid.first_across = across, grid.apart = s;
      for (int tap = 0; tap < 9; ++tap) {
        const int y = down + 1 - tap / 3, x = across + 1 - tap % 3;
        if (y % s == 0 && x % s == 0) grid.taps.push_back({tap, y / s, x / s});
      }
      grids.push_back(std::move(grid));
    }
  return grids;
}

// Some rows of a grid with the taps' channels [first, first + count) side by side.
template <class Source>
inline void lay_out(const Source& source, const Grid& grid, int64_t first_row, int rows, int first,
                    int count, float* to, long apart) {
  for (int r = 0; r < rows; ++r) {
    const int64_t row = first_row + r;
    const int x = static_cast<int>(row % grid.width) * grid.step;
    const int y = static_cast<int>(row / grid.width % grid.height) * grid.step;
    const int image = static_cast<int>(row / grid.width / grid.height);
    // What is written beyond a tap's channels is overwritten by the next tap.
    for (size_t k = 0; k < grid.taps.size(); ++k)
      read_pixel(source, image, y + grid.taps[k].down, x + grid.taps[k].across, first, count,
                 to + r * apart + k * count);
  }
}

// A grid's weights: for each group [taps · channels that are read, channels that are written].
struct DirectWeights {
  int rows, columns, apart;
  Floats data;
  const float* group(int g) const { return data.get() + static_cast<size_t>(g) * rows * apart; }

  // `turned`: of the gradients, which read outputs and write inputs.
  DirectWeights(const Shape& shape, const float* weight, const Grid& grid, bool turned)
      : rows(static_cast<int>(grid.taps.size()) *
             (turned ? shape.group_outputs() : shape.group_inputs())),
        columns(turned ? shape.group_inputs() : shape.group_outputs()),
        apart(round_up(columns, LANES)),
        data(floats(static_cast<size_t>(shape.groups) * rows * apart)) {
    const int in = shape.group_inputs(), out = shape.group_outputs(), read = turned ? out : in;
    for (int g = 0; g < shape.groups; ++g)
      for (int row = 0; row < rows; ++row) {
        float* to = data.get() + (static_cast<size_t>(g) * rows + row) * apart;
        const int tap = grid.taps[row / read].number, one = row % read;
        for (int other = 0; other < columns; ++other) {
          const size_t o = g * out + (turned ? one : other), i = turned ? other : one;
          to[other] = weight[(o * in + i) * 9 + tap];
        }
      }
  }
};

// Rows that are laid out together, so that they stay in the second-level cache.
inline int rows_together(int columns) { return std::clamp(40000 / columns / MR * MR, MR, 16 * MR); }

template <class Number>
inline void direct_forward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const Maps& out, int threads) {
  const Grid grid = output_grid(shape, out.images);
  const DirectWeights weights(shape, weight, grid, false);
  const int step = rows_together(weights.rows), in = shape.group_inputs();
  const long apart = weights.rows + LANES;
  Team::here().run(threads, [&](int index) {
    const Floats left = floats(step * apart);
    const Share share(grid.rows(), index, threads, step);
    for (int64_t row = share.low; row < share.high; row += step) {
      const int rows = static_cast<int>(std::min<int64_t>(step, share.high - row));
      for (int g = 0; g < shape.groups; ++g) {
        lay_out(input, grid, row, rows, g * in, in, left.get(), apart);
        multiply({left.get(), apart}, {weights.group(g), weights.apart}, rows, weights.rows,
                 weights.columns, {out.at(row) + g * weights.columns, out.ld, false});
      }
    }
  });
}

// A thread's part of the gradients of the inputs.
template <class Number>
inline void direct_inputs(const Shape& shape, const Corrected& gradient, const Grid& grid,
                          const DirectWeights& weights, const MaskedOf<Number>& masked, Share share,
                          int step, Totals& totals) {
  const int in = weights.columns, out = shape.group_outputs();
  const long apart = weights.rows + LANES, padded = weights.apart;
  const Floats left = floats(step * apart), results = floats(step * padded);
  for (int64_t row = share.low; row < share.high; row += step) {
    const int rows = static_cast<int>(std::min<int64_t>(step, share.high - row));
    for (int g = 0; g < shape.groups; ++g) {
      lay_out(gradient, grid, row, rows, g * out, out, left.get(), apart);
      if (weights.rows)
        multiply({left.get(), apart}, {weights.group(g), padded}, rows, weights.rows,
                 static_cast<int>(padded), {results.get(), padded, false});
      for (int k = 0; k < in; k += LANES) {
        const auto write = masked.writer(g * in + k, first_lanes(in - k));
        Vector sum{}, product{};
        for (int r = 0; r < rows; ++r)
          write(grid.pixel(row + r, masked.x), load(results.get() + r * padded + k), sum, product);
        totals.add(g * in + k, in - k, sum, product);
      }
    }
    totals.fold();
  }
}

// A thread's part of the weights' gradients, added to `sums` [groups, 9 · inputs, outputs].
template <class Number>
inline void direct_weights(const Shape& shape, const ActivationsOf<Number>& input,
                           const Corrected& gradient, const Grid& grid, Share share, int step,
                           float* sums) {
  const int in = shape.group_inputs(), out = shape.group_outputs(), padded = round_up(out, LANES);
  const long apart = 9 * in + LANES;
  const Floats left = floats(step * apart), right = floats(step * padded);
  for (int64_t row = share.low; row < share.high; row += step) {
    const int rows = static_cast<int>(std::min<int64_t>(step, share.high - row));
    for (int g = 0; g < shape.groups; ++g) {
      lay_out(input, grid, row, rows, g * in, in, left.get(), apart);
      for (int r = 0; r < rows; ++r)
        for (int k = 0; k < out; k += LANES)
          store(right.get() + r * padded + k, gradient.reader(g * out + k, out - k)(row + r));
      multiply({left.get(), apart, true}, {right.get(), padded}, 9 * in, rows, padded,
               {sums + static_cast<size_t>(g) * 9 * in * padded, padded, true});
    }
  }
}

// The threads' sums, in their order, as [outputs, inputs of a group, 3, 3].
inline void write_weights(const Shape& shape, const std::vector<Floats>& sums, float* to,
                          int threads) {
  const int in = shape.group_inputs(), out = shape.group_outputs(), padded = round_up(out, LANES);
  Team::here().run(threads, [&](int index) {
    const Share share(shape.outputs, index, threads);
    for (int64_t o = share.low; o < share.high; ++o)
      for (int i = 0; i < in; ++i)
        for (int tap = 0; tap < 9; ++tap) {
          const size_t at = ((o / out * 9 + tap) * in + i) * padded + o % out;
          float sum = 0;
          for (const Floats& thread : sums) sum += thread[at];
          to[(o * in + i) * 9 + tap] = sum;
        }
  });
}

template <class Number>
inline void direct_backward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const Corrected& gradient,
                            const MaskedOf<Number>& masked, float* weight_gradient,
                            const Sums& sums, int threads) {
  const int images = input.maps.images;
  const Grid outputs = output_grid(shape, images);
  const std::vector<Grid> inputs = input_grids(shape, images);
  std::vector<DirectWeights> weights;
  for (const Grid& grid : inputs) weights.emplace_back(shape, weight, grid, true);
  const int rows = shape.groups * 9 * shape.group_inputs();
  const int step = rows_together(9 * shape.group_inputs());
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  Team::here().run(threads, [&](int index) {
    totals[index] = Totals(shape.inputs);
    parts[index] = floats(static_cast<size_t>(rows) * round_up(shape.group_outputs(), LANES));
    const Share share(outputs.rows(), index, threads, step);
    direct_weights(shape, input, gradient, outputs, share, step, parts[index].get());
    for (size_t k = 0; k < inputs.size(); ++k) {
      const int together = rows_together(std::max(1, weights[k].rows));
      direct_inputs(shape, gradient, inputs[k], weights[k], masked,
                    Share(inputs[k].rows(), index, threads, together), together, totals[index]);
    }
  });
  combine(totals, sums, shape.inputs);
  write_weights(shape, parts, weight_gradient, threads);
}

}  // namespace densepath
