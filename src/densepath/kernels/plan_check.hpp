// Whether a plan is one that the kernels can walk: every map as large as who reads it thinks.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "plan.hpp"

namespace densepath {

constexpr int MOST = 1 << 16;  // channels, layers: above any network of the two families
constexpr int MOST_KERNEL = 15;

// Throws std::runtime_error: `value` is outside of 1 … `most`.
inline void check_within(const std::string& what, int64_t value, int64_t most) {
  if (value < 1 || value > most)
    throw std::runtime_error(what + " is " + std::to_string(value) + ", which no network has");
}

// The channels that a layer appends to the state.
inline int added_by(const PlanLayer& row) {
  if (row.writes == Writes::appends) return row.outputs;
  return row.writes == Writes::adds ? row.outputs - row.base : 0;
}

namespace detail {

// Channels, and by how much the side is smaller than the stem's.
struct Extent {
  int channels = 0;
  int64_t divisor = 1;
};

class PlanCheck {
 public:
  explicit PlanCheck(const Plan& plan) : plan_(plan) {}

  void run() {
    const std::vector<PlanLayer>& rows = plan_.layers;
    check_within("layers", static_cast<int64_t>(rows.size()), MOST);
    check_within("in_channels", plan_.channels, MOST);
    if (!(plan_.bn_eps > 0)) throw std::runtime_error("bn_eps is not above 0");
    const PlanLayer& stem = rows.front();
    numbers(stem);
    fits(stem, stem.reads == Reads::images && stem.writes == Writes::opens && stem.groups == 1 &&
                   !stem.averaged && stem.before.empty() && rows.size() > 1);
    state_ = {stem.outputs, 1};
    for (size_t i = 1; i + 1 < rows.size(); ++i) convolution(rows[i - 1], rows[i], rows[i + 1]);
    const PlanLayer& last = rows.back();
    fits(last, last.kind == Kind::classifier && last.reads == Reads::state &&
                   last.inputs == state_.channels && !last.before.empty());
  }

 private:
  static void fits(const PlanLayer& row, bool it_does) {
    if (!it_does) throw std::runtime_error(row.name + " does not fit into the network");
  }

  static void numbers(const PlanLayer& row) {
    check_within("outputs of " + row.name, row.outputs, MOST);
    check_within("kernel of " + row.name, row.kernel, MOST_KERNEL);
    check_within("stride of " + row.name, row.stride, 2);
    check_within("groups of " + row.name, row.groups, row.outputs);
  }

  void convolution(const PlanLayer& before, const PlanLayer& row, const PlanLayer& next) {
    numbers(row);
    if (row.part != before.part) found_ = state_;
    const bool from_state = row.reads == Reads::state;
    fits(row, row.kind == Kind::convolution && row.pool == StemPool::none &&
                  (from_state || (row.reads == Reads::layer && before.writes == Writes::nothing)));
    const Extent in = from_state ? found_ : handed_;
    fits(row, row.inputs == in.channels);
    const Extent out{row.outputs, in.divisor * row.stride * (row.averaged ? 2 : 1)};
    if (row.kernel == 1)
      fits(row, row.groups == 1 && (out.divisor == in.divisor || row.writes == Writes::opens));
    else
      fits(row, row.kernel == 3 && !row.averaged && row.inputs % row.groups == 0 &&
                    row.outputs % row.groups == 0 && from_state != row.before.empty());
    writes(row, next, out);
  }

  void writes(const PlanLayer& row, const PlanLayer& next, const Extent& out) {
    switch (row.writes) {
      case Writes::opens:
        fits(row, row.kernel == 1 && row.reads == Reads::state && out.divisor <= MOST);
        state_ = out;
        return;
      case Writes::appends:
        fits(row, row.kernel == 3 && out.divisor == state_.divisor);
        break;
      case Writes::adds:
        fits(row, row.kernel == 1 && row.reads == Reads::layer && 0 < row.base &&
                      row.base < row.outputs && row.base <= state_.channels &&
                      out.divisor == state_.divisor);
        break;
      case Writes::nothing:
        fits(row, next.reads == Reads::layer && next.part == row.part &&
                      (row.kernel == 3 ? next.kernel == 1
                                       : next.kernel == 3 && row.reads == Reads::state));
        handed_ = out;
        return;
    }
    state_.channels += added_by(row);
    check_within("channels behind " + row.name, state_.channels, MOST);
  }

  const Plan& plan_;
  Extent state_, found_, handed_;
};

}  // namespace detail

// Throws std::runtime_error: it is none.
inline void check_plan(const Plan& plan) { detail::PlanCheck(plan).run(); }

}  // namespace densepath
