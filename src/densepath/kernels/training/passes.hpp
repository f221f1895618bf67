// Passes over a whole map: its statistics, and the correction of a gradient.
#pragma once

#include "maps.hpp"
#include "team.hpp"

namespace densepath {

template <class Number>
inline void find_moments(const MapsOf<Number>& x, Statistics statistics, int threads) {
  std::vector<Moments> moments(threads, Moments(x.channels));
  Team::here().run(threads, [&](int index) {
    const Share share(x.pixels(), index, threads);
    for (int64_t p = share.low; p < share.high; p += ROWS)
      moments[index].add(x.at(p), x.ld, static_cast<int>(std::min<int64_t>(ROWS, share.high - p)));
  });
  gather(moments, statistics);
}

// data += constant + slope · x, channel by channel.
template <class Number, class Read>
inline void correct(const MapsOf<Number>& data, const float* constant, const float* slope,
                    const MapsOf<Read>& x, int threads) {
  const int channels = data.channels;
  const Floats held = padded(constant, channels), steep = padded(slope, channels);
  Team::here().run(threads, [&](int index) {
    const Share share(data.pixels(), index, threads);
    for (int64_t p = share.low; p < share.high; ++p) {
      Number* to = data.at(p);
      const Read* from = x.at(p);
      for (int c = 0; c < channels; c += LANES)
        store_some(to + c,
                   load_some(to + c, channels - c) + load(held.get() + c) +
                       load(steep.get() + c) * load(from + c),
                   channels - c);
    }
  });
}

}  // namespace densepath
