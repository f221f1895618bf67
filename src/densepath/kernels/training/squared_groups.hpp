// 3×3 convolutions in groups of a training step in AMX's registers, both ways, plane by plane: the
// channels of as many groups as 16 hold, or of one that has up to 32.
//
// A product costs so little there that zeros between groups and, of a stride of two, between pixels
// are multiplied, too: all three products are those of a line of the inputs' pixels.
#pragma once

#include <vector>

#include "band_entries.hpp"
#include "line.hpp"

namespace densepath {

// Whether `planes_forward` and `planes_backward` are for such a convolution.
template <class Number>
inline bool is_in_planes(const Shape& shape) {
  return std::is_same_v<Number, BFloat16> && Slices::fit(shape) &&
         shape.group_inputs() <= SQUARE_DEPTH && may_use_squares();
}

constexpr long FLOATS = 320000;

struct Planes {
  const Shape& shape;
  int width, slot;  // channels of a group; numbers of a plane's pixel
  int channels;     // of a plane, but perhaps of the last

  explicit Planes(const Shape& shape_)
      : shape(shape_),
        width(shape.group_inputs()),
        slot(tap_inputs(width)),
        channels(slot / width * width) {}
  int count() const { return (shape.inputs + channels - 1) / channels; }
  Span span(int plane) const {
    const int first = plane * channels;
    return {first, std::min(channels, shape.inputs - first)};
  }

  // Of [outputs, width, 3, 3]; or, `turned`, as the gradients of the inputs are made from those of
  // the outputs.
  PackedPairs weights(const float* weight, int plane, bool turned) const {
    const auto [first, here] = span(plane);
    return pack_taps(slot, slot, [&, first = first, here = here](int tap, int i, int o) {
      if (i >= here || o >= here || i / width != o / width) return 0.0f;
      return turned ? weight[place(first + i, o % width, 8 - tap)]
                    : weight[place(first + o, i % width, tap)];
    });
  }
  size_t place(int output, int input, int tap) const {
    return (static_cast<size_t>(output) * width + input) * 9 + tap;
  }

  // A thread's share of all planes' weights.
  void pack(const float* weight, bool turned, Share share, std::vector<PackedPairs>& to) const {
    for (int plane = static_cast<int>(share.low); plane < share.high; ++plane)
      to[plane] = weights(weight, plane, turned);
  }
};

template <class Number, class Made>
inline void planes_forward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const MapsOf<Made>& out,
                           std::vector<Moments>* moments, int threads) {
  const Planes planes(shape);
  std::vector<PackedPairs> weights(planes.count());
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    planes.pack(weight, false, Share(planes.count(), index, threads), weights);
  });
  const Banding bands(shape, out.images, 2, FLOATS);
  const int s = shape.stride, slot = planes.slot;
  const Line line(bands.rows() * s, shape.width);
  team.run(threads, [&](int index) {
    const HalfPlaces entered(line, slot);
    const Scratch results(static_cast<size_t>(line.squared) * slot);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(out, band.image, band.low, band.high);
    };
    bands.each(
        Share(bands.count(), index, threads), planes.count(), prepare, [&](int plane, Band band) {
          if (band.high == band.low) return;
          const Span span = planes.span(plane);
          entered.read(input, span, band.image, band.low * s, band.high * s, shape.height, 1);
          multiply_taps(entered.at(0), entered.apart, line.columns, weights[plane], line.squared,
                        results.get(), {});
          int64_t pixel = (static_cast<int64_t>(band.image) * shape.high + band.low) * shape.wide;
          const int64_t first = pixel;
          for (int y = 0; y < band.high - band.low; ++y)
            for (int x = 0; x < shape.wide; ++x, ++pixel) {
              const float* from =
                  results.get() + (static_cast<long>(y) * line.columns + x) * s * slot;
              for (int c = 0; c < span.count; c += LANES)
                store_some(out.at(pixel) + span.first + c, load(from + c), span.count - c);
            }
          if (moments && plane + 1 == planes.count())
            (*moments)[index].add(out.at(first), out.ld, static_cast<int>(pixel - first));
        });
  });
}

template <class Number>
inline void planes_backward(const Shape& shape, const ActivationsOf<Number>& input,
                            const float* weight, const Corrected& gradient,
                            const MaskedOf<Number>& masked, float* weight_gradient,
                            const Sums& sums, int threads) {
  const Planes planes(shape);
  const int s = shape.stride, slot = planes.slot;
  const size_t size = LineProducts::sums(slot, slot);
  std::vector<PackedPairs> weights(planes.count());
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  Team& team = Team::here();
  team.run(threads, [&](int index) {
    planes.pack(weight, true, Share(planes.count(), index, threads), weights);
  });
  const Banding bands(shape, input.maps.images, 3, FLOATS);
  const Line line(bands.rows() * s, shape.width);
  team.run(threads, [&](int index) {
    totals[index] = Totals(shape.inputs);
    parts[index] = floats(size * planes.count());
    const LineProducts products(line, slot, slot);
    const auto prepare = [&](Band band) {
      fetch_rows(input.maps, band.image, band.low * s - 1, band.high * s + 1);
      fetch_rows(masked.into, band.image, band.low * s, band.high * s);
      fetch_rows(gradient, band.image, band.low - 1, band.high + 1);
    };
    bands.each(Share(bands.count(), index, threads), planes.count(), prepare,
               [&](int plane, Band band) {
                 if (band.high == band.low) return;
                 const Span span = planes.span(plane);
                 const int low = band.low * s, high = band.high * s;
                 products.entered.read(input, span, band.image, low, high, shape.height, 1);
                 products.gradients.read(gradient, span, band.image, low, high, shape.height, s);
                 products.add_weights(parts[index].get() + plane * size);
                 leave_rows(line, products.multiply(weights[plane]), slot, span, band.image, low,
                            std::min(high, shape.height), masked, totals[index]);
                 if (plane + 1 == planes.count()) totals[index].fold();
               });
  });
  combine(totals, sums, shape.inputs);
  team.run(threads, [&](int index) {
    const Share share(shape.outputs, index, threads);
    for (int o = static_cast<int>(share.low); o < share.high; ++o)
      for (int i = 0; i < planes.width; ++i)
        for (int tap = 0; tap < 9; ++tap) {
          const int of_plane = o % planes.channels, group = of_plane / planes.width * planes.width;
          const size_t place =
              o / planes.channels * size + LineProducts::sum(slot, slot, tap, group + i, of_plane);
          float sum = 0;
          for (const Floats& part : parts) sum += part[place];
          weight_gradient[planes.place(o, i, tap)] = sum;
        }
  });
}

}  // namespace densepath
