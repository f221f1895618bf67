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
  return std::is_same_v<Number, BFloat16> && fits_slices(shape) &&
         multiplies_planes(shape.group_inputs());
}

// Floats of what a pass reads and writes of a band, for `Banding`: more than other passes keep, as
// here what is done once a band and plane, not once a pixel, takes a good part of the time.
constexpr long BAND_OF_PLANES = 320000;

// The planes' weights, of [outputs, width, 3, 3]; or, `turned`, as the gradients of the inputs are
// made from those of the outputs.
inline std::vector<PackedPairs> plane_weights(const Planes& planes, const float* weight,
                                              bool turned, int threads) {
  const auto at = [&](int output, int input, int tap) {
    return weight[(static_cast<size_t>(output) * planes.width + input % planes.width) * 9 + tap];
  };
  std::vector<PackedPairs> packed(planes.count());
  Team::here().run(threads, [&](int index) {
    const Share share(planes.count(), index, threads);
    for (int plane = static_cast<int>(share.low); plane < share.high; ++plane)
      packed[plane] = planes.pack(
          plane, [&](int tap, int i, int o) { return turned ? at(i, o, 8 - tap) : at(o, i, tap); });
  });
  return packed;
}

template <class Number, class Made>
inline void planes_forward(const Shape& shape, const ActivationsOf<Number>& input,
                           const float* weight, const MapsOf<Made>& out,
                           std::vector<Moments>* moments, int threads) {
  const Planes planes(shape.inputs, shape.group_inputs());
  const auto weights = plane_weights(planes, weight, false, threads);
  const Banding bands(shape, out.images, 2, BAND_OF_PLANES);
  const int s = shape.stride, slot = planes.slot;
  const Line line(bands.rows() * s, shape.width);
  Team::here().run(threads, [&](int index) {
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
  const Planes planes(shape.inputs, shape.group_inputs());
  const int s = shape.stride, slot = planes.slot;
  const size_t size = LineProducts::sums(slot, slot);
  const auto weights = plane_weights(planes, weight, true, threads);
  std::vector<Totals> totals(threads);
  std::vector<Floats> parts(threads);
  const Banding bands(shape, input.maps.images, 3, BAND_OF_PLANES);
  const Line line(bands.rows() * s, shape.width);
  Team::here().run(threads, [&](int index) {
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
  return_sums(
      parts, shape.outputs, planes.width, threads,
      [&](int tap, int i, int o) {
        const int own = o % planes.channels, group = own / planes.width * planes.width;
        return o / planes.channels * size + LineProducts::sum(slot, slot, tap, group + i, own);
      },
      weight_gradient);
}

}  // namespace densepath
