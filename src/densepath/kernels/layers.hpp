// The layers of both families on maps whose channels stand side by side.
//
// A map is rows of channels, one row a pixel, `ld` floats apart. The features of a block grow in
// one map: every layer writes its own columns, so that nothing is ever concatenated. BatchNorm and
// ReLU in front of a convolution are applied while its input is laid out for the product.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "bfloat16.hpp"
#include "grouped.hpp"
#include "matrix.hpp"
#include "plan.hpp"
#include "winograd.hpp"

namespace densepath {

// Threads that work on one image meet here after each layer.
class Barrier {
 public:
  void wait(int count) {
    if (count == 1) return;
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase && !abandoned(); ++spins)
      if (spins > 2000) std::this_thread::yield();
  }

  // Not all will come: those that wait need wait no longer.
  void abandon() { abandoned_.store(true, std::memory_order_release); }
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }

 private:
  std::atomic<int> arrived_{0}, phase_{0};
  std::atomic<bool> abandoned_{false};
};

// Which thread of how many this is.
struct Part {
  int index, count;
  Barrier* barrier;
  void meet() const { barrier->wait(count); }
  // This thread's share of `total`, as [low, high).
  void share(int total, int& low, int& high) const {
    low = static_cast<int>(static_cast<int64_t>(total) * index / count);
    high = static_cast<int>(static_cast<int64_t>(total) * (index + 1) / count);
  }
  // Rows of one product where `total` are to be shared.
  int rows(int total) const {
    return std::min(ROWS, std::max(MR, round_up((total + count - 1) / count, MR)));
  }
};

// A thread's own memory.
struct Scratch {
  Floats left = floats(static_cast<size_t>(ROWS) * LDA);
  Floats entered = floats(static_cast<size_t>(POINTS) * TILES * LDA);
  std::vector<float> results;
  std::vector<uint8_t> levels, middle;
  float* result(size_t count) {
    if (results.size() < count + LANES) results.resize(count + LANES);
    return results.data();
  }
  uint8_t* level(size_t count) {
    if (levels.size() < count) levels.resize(count);
    return levels.data();
  }
  uint8_t* between(size_t count) {
    if (middle.size() < count) middle.resize(count);
    return middle.data();
  }
};

template <class T>
struct MapOf {
  T* data;
  int height, width;
  long ld;
  int pixels() const { return height * width; }
  T* at(int pixel) const { return data + static_cast<size_t>(pixel) * ld; }
};
using Map = MapOf<float>;

// A map with a border of zeros: one pixel, and what whole tiles need to the right and below.
template <class T>
struct PaddedOf {
  T* data;
  int height, width, whole_height, whole_width;
  long ld;
  T* at(int y, int x) const {  // of the inside; −1 is the border
    return data + (static_cast<size_t>(y + 1) * whole_width + x + 1) * ld;
  }
  static PaddedOf of(T* data, int height, int width, long ld) {
    return {data, height, width, round_up(height, TILE) + 2, round_up(width, TILE) + 2, ld};
  }
  size_t size() const { return static_cast<size_t>(whole_height) * whole_width * ld; }
  bool like(const PaddedOf& other) const {
    return data == other.data && height == other.height && width == other.width && ld == other.ld;
  }
  void clear_border(Part part) const {
    int low, high;
    part.share(whole_height, low, high);
    for (int y = low; y < high; ++y) {
      T* row = data + static_cast<size_t>(y) * whole_width * ld;
      const bool outside = y == 0 || y > height;
      if (outside) {
        std::memset(row, 0, sizeof(T) * whole_width * ld);
      } else {
        std::memset(row, 0, sizeof(T) * ld);
        std::memset(row + (width + 1) * ld, 0, sizeof(T) * (whole_width - width - 1) * ld);
      }
    }
  }
};
using Padded = PaddedOf<float>;

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

enum class Reading { every_pixel, every_second, averages };  // of a map, by a 1×1 convolution

inline Reading reading_of(const PlanLayer& row) {
  if (row.averaged) return Reading::averages;
  return row.stride == 2 ? Reading::every_second : Reading::every_pixel;
}

// BN-ReLU-1×1, or 1×1 alone; of every pixel, every second one, or of 2×2 averages after the ReLU.
struct Pointwise {
  Norm norm;
  Packed weights;
  PackedPairs pairs;  // in place of `weights`, of a layer in bfloat16
  int outputs = 0;
  Floats bias;
  bool relu = false;
  Reading reading = Reading::every_pixel;

  Ending ending(bool add) const { return {bias.get(), add, relu}; }

  template <class Number>
  void lay_out(const Map& in, int width, int first_pixel, int rows, int first, int count,
               Number* to) const {
    const int step = reading == Reading::every_pixel ? 1 : 2;
    for (int r = 0; r < rows; ++r, to += APART<Number>) {
      const int p = first_pixel + r;
      const float* from = in.at(step == 1 ? p : p / width * 2 * in.width + p % width * 2) + first;
      if (!norm) {
        copy(to, from, count);
      } else if (reading != Reading::averages) {
        for (int k = 0; k < count; k += LANES) store(to + k, norm.apply(load(from + k), first + k));
      } else {
        const float* below = from + in.width * in.ld;
        for (int k = 0; k < count; k += LANES) {
          const int c = first + k;
          const Vector sum = norm.apply(load(from + k), c) + norm.apply(load(from + in.ld + k), c) +
                             norm.apply(load(below + k), c) +
                             norm.apply(load(below + in.ld + k), c);
          store(to + k, sum * 0.25f);
        }
      }
    }
  }

  // Pixels from `first_pixel` on, `rows` of them, of an output that is `width` wide.
  void multiply_rows(const Map& in, int width, int first_pixel, int rows, float* to, long ld,
                     Ending ending, Scratch& own) const {
    const auto pack = [&](int first, int count, auto* left) {
      lay_out(in, width, first_pixel, rows, first, count, left);
    };
    if (pairs) return product(pairs, rows, pack, to, ld, ending, own.left.get());
    product(weights, rows, pack, to, ld, ending, own.left.get());
  }

  // Columns of `out` from `column` on; added to what stands there if `add`.
  void run(const Map& in, const Map& out, int column, bool add, Part part, Scratch& own) const {
    const int step = part.rows(out.pixels());
    int low, high;
    part.share((out.pixels() + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, out.pixels() - p);
      multiply_rows(in, out.width, p, rows, out.at(p) + column, out.ld, ending(add), own);
    }
  }

  // The inside of a padded map.
  void run(const Map& in, const Padded& out, Part part, Scratch& own) const {
    const int total = out.height * out.width, step = part.rows(total);
    int low, high;
    part.share((total + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, total - p);
      float* results = own.result(static_cast<size_t>(rows) * out.ld);
      multiply_rows(in, out.width, p, rows, results, out.ld, ending(false), own);
      for (int r = 0; r < rows; ++r)
        std::memcpy(out.at((p + r) / out.width, (p + r) % out.width), results + r * out.ld,
                    sizeof(float) * outputs);
    }
  }
};

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
  std::vector<Packed> points;  // for Winograd's way, where it is prepared
  int group_width = 0;
  std::vector<GroupedSlice> grouped;  // in place of `slices`
  Floats bias;
  bool relu = false;

  // `taps` [3, 3, inputs / groups, outputs]. Only plain products are in bfloat16: Winograd's way in
  // float32 is quicker than these, and groups fill no pairs.
  void set_weights(const float* taps, int groups, bool winograd, Arithmetic arithmetic) {
    if (winograd) points = transform_weights(taps, inputs, outputs);
    const int in = inputs / groups, out = outputs / groups;
    group_width = in;
    if (is_grouped(inputs, outputs, groups)) {
      grouped = slice_groups(taps, outputs, in);
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
    return Padded::of(data, height, width, round_up(inputs, LANES));
  }

  // The state, normalised → the inside of what it reads.
  void enter(const Map& in, const Padded& to, Part part, Scratch&) const {
    int low, high;
    part.share(in.pixels(), low, high);
    for (int p = low; p < high; ++p)
      for (int c = 0; c < inputs; c += LANES)
        store_some(to.at(p / in.width, p % in.width) + c, norm.apply(load(in.at(p) + c), c),
                   inputs - c);
  }

  // Columns of `out` from `column` on.
  void run(const Padded& in, const Map& out, int column, Part part, Scratch& own) const {
    if (!points.empty())
      run_tiles(in, out, column, part, own);
    else if (!grouped.empty())
      run_groups(in, out, column, part);
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

  void run_groups(const Padded& in, const Map& out, int column, Part part) const {
    int low, high;
    part.share(out.height, low, high);
    const long line = in.whole_width * in.ld;
    for (int y = low; y < high; ++y)
      for (const GroupedSlice& slice : grouped)
        for (int x = 0; x < out.width; x += ABREAST) {
          const float* corner = in.at(y * stride - 1, x * stride - 1) + slice.first_input;
          const int first = slice.first_output;
          const Target target{out.at(y * out.width + x) + column + first, out.ld, outputs - first,
                              bias ? bias.get() + first : nullptr, relu};
          grouped_tile(std::min(ABREAST, out.width - x), slice, group_width,
                       {corner, stride * in.ld, line, in.ld}, target);
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

// The last layer: features [count, inputs] → logits [count, classes].
struct FloatClassifier {
  Packed weights;
  Floats bias;
  int classes() const { return weights.outputs; }

  void run(const float* features, int count, int inputs, float* logits, Scratch& own) const {
    for (int p = 0; p < count; p += ROWS) {
      const int rows = std::min(ROWS, count - p);
      product(
          weights, rows,
          [&](int first, int length, float* to) {
            for (int r = 0; r < rows; ++r)
              std::memcpy(to + static_cast<long>(r) * LDA,
                          features + static_cast<size_t>(p + r) * inputs + first,
                          sizeof(float) * length);
          },
          logits + static_cast<size_t>(p) * weights.outputs, weights.outputs,
          {bias.get(), false, false}, own.left.get());
    }
  }
};

}  // namespace densepath
