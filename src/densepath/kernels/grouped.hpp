// 3×3 convolutions in groups, straight from the padded map: nothing is multiplied by zero, and
// nothing laid out (see grouped_tile.hpp).
#pragma once

#include <utility>
#include <vector>

#include "grouped_tile.hpp"
#include "image_maps.hpp"

namespace densepath {

// One or two vectors of outputs; of several groups, or in one.
struct GroupedSlice {
  int first_entry, first_output, columns;
  std::vector<int32_t> places;  // [entries of a group, LANES]: from `first_entry` on
  Floats weights;               // [3 rows, entries of a group, 3 columns, vectors, LANES]
  int vectors() const { return (columns + LANES - 1) / LANES; }
};

// A convolution of two groups or more.
template <class Entry>
class Grouped {
 public:
  Grouped() = default;

  // `taps` [3, 3, inputs / groups, outputs].
  Grouped(const float* taps, int inputs, int outputs, int groups, int stride)
      : inputs_(inputs),
        outputs_(outputs),
        width_(inputs / groups),
        each_(outputs / groups),
        entries_((width_ + Entry::INPUTS - 1) / Entry::INPUTS),
        stride_(stride) {
    const int most = std::max(each_, entries_);
    const bool fits = fit_vectors();
    narrow_ = PERMUTES && most < LANES && (fits || 2 * most <= LANES);
    for (int first = 0; first < outputs;) {
      const int end =
          narrow_ && fits ? outputs : (first / each_ + (narrow_ ? LANES / most : 1)) * each_;
      const int columns = std::min({end - first, outputs - first, narrow_ ? LANES : PANEL});
      slices_.push_back(slice(taps, first, columns));
      first += columns;
    }
  }
  explicit operator bool() const { return !slices_.empty(); }

  // What it reads of a map of this size. An odd number of vectors keeps pixels from falling on the
  // same cache sets.
  Padded padded(float* data, int height, int width) const {
    return Padded::of(data, height, width, round_up(outputs_ / each_ * entries_, LANES) | LANES);
  }

  // One pixel's inputs, in whole vectors, → a pixel of the padded map. `from` is lost.
  void place(float* from, float* to) const { Entry::place(from, to, inputs_, width_); }

  // Columns of `out` from `column` on.
  template <class Number>
  void run(const Padded& in, const MapOf<Number>& out, int column, const float* bias, bool relu,
           Part part) const {
    run(in, out.height, out.width, part, [&](int y, int first, int columns) {
      return TargetOf<Number>{out.at(y * out.width) + column + first, out.ld, columns,
                              bias ? bias + first : nullptr, relu};
    });
  }

  // Rows of `width` outputs; target_of(row, first output, outputs) is where a row's go.
  template <class T, class TargetOfRow>
  void run(const PaddedOf<T>& in, int height, int width, Part part,
           const TargetOfRow& target_of) const {
    constexpr long EACH = sizeof(Unit) / sizeof(T);
    const long ld = in.ld / EACH;
    int low, high;
    part.share(height, low, high);
    for (int y = low; y < high; ++y)
      for (const GroupedSlice& slice : slices_) {
        const auto* corner = reinterpret_cast<const Unit*>(in.at(y * stride_ - 1, -1));
        const WindowOf<Unit> window{corner + slice.first_entry, stride_ * ld, in.whole_width * ld,
                                    ld};
        const auto target = target_of(y, slice.first_output, slice.columns);
        if (stride_ == 1)
          run_row<1>(slice, width, window, target);
        else
          run_row<2>(slice, width, window, target);
      }
  }

 private:
  using Unit = typename Entry::Unit;

  int first_entry(int output) const { return output / each_ * entries_; }

  // Whether the inputs of any vector of outputs lie within a vector of entries.
  bool fit_vectors() const {
    for (int first = 0; first < outputs_; first += LANES) {
      const int last = std::min(first + LANES, outputs_) - 1;
      if (first_entry(last) + entries_ - first_entry(first) > LANES) return false;
    }
    return true;
  }

  GroupedSlice slice(const float* taps, int first, int columns) const {
    GroupedSlice made{
        first_entry(first), first, columns, std::vector<int32_t>(entries_ * LANES), {}};
    const int across = made.vectors() * LANES;
    for (int i = 0; narrow_ && i < entries_; ++i)
      for (int lane = 0; lane < columns; ++lane)
        made.places[i * LANES + lane] = first_entry(first + lane) + i - made.first_entry;
    made.weights = floats(static_cast<size_t>(9) * entries_ * across);
    for (int tap = 0; tap < 9; ++tap)
      for (int input = 0; input < width_; ++input) {
        std::vector<float> row(across);
        for (int lane = 0; lane < columns; ++lane)
          row[lane] = taps[(static_cast<size_t>(tap) * width_ + input) * outputs_ + first + lane];
        const int place = (tap / 3 * entries_ + input / Entry::INPUTS) * 3 + tap % 3;
        for (int lane = 0; lane < across; lane += LANES)
          Entry::set(made.weights.get() + static_cast<size_t>(place) * across + lane,
                     load(row.data() + lane), input % Entry::INPUTS);
      }
    return made;
  }

  template <int STRIDE, class Target>
  void run_row(const GroupedSlice& slice, int width, WindowOf<Unit> in, const Target& out) const {
    const GroupedWeights weights{slice.weights.get(), slice.places.data()};
    if (slice.vectors() == 1)
      grouped_row<Entry, 1, STRIDE>(weights, narrow_, entries_, width, in, out);
    else
      grouped_row<Entry, 2, STRIDE>(weights, narrow_, entries_, width, in, out);
  }

  int inputs_ = 0, outputs_ = 0;
  int width_ = 1, each_ = 1, entries_ = 1;  // of a group: inputs, outputs, entries
  int stride_ = 1;
  bool narrow_ = false;
  std::vector<GroupedSlice> slices_;
};

}  // namespace densepath
