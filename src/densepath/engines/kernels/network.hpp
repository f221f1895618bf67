// A DenseNet or DPN as a list of stages, and its way through memory.
#pragma once

#include <mutex>
#include <stdexcept>
#include <vector>

#include "arch.hpp"
#include "layers.hpp"

namespace densepath {

struct Stem {
  int channels, kernel, stride, outputs;
  bool relu;
  StemPool pool;
  Packed weights;  // [kernel · kernel · channels, outputs]
  Floats bias;

  int side(int n) const { return (n - 1) / stride + 1; }
  int pooled(int n) const { return pool == StemPool::none ? n : (n + 1) / 2; }
};

// A layer of a dense block: BN-ReLU-1×1-(BN)-ReLU-3×3, or BN-ReLU-3×3 without `squeeze`.
struct DenseLayer {
  int column;  // where its features go
  Norm norm;
  Pointwise squeeze;
  Convolution conv;
  bool bottleneck() const { return squeeze.weights.outputs > 0; }
};

// A block of a DPN. The first of a stage has `project`.
struct DualPathBlock {
  bool first;
  int base, column;  // width of the residual path; where the new dense features go
  Pointwise project, a, to_residual, to_dense;
  Convolution b;
};

struct Stage {
  long ld;  // of its map: the channels after its last layer, rounded up
  std::vector<DenseLayer> layers;
  Pointwise transition;  // out of a dense block; none after the last
  std::vector<DualPathBlock> blocks;
};

// Memory for one image on its way.
struct Workspace {
  Floats image, stem, maps[2], padded, between;
};

// Things that are taken, used and given back by many threads.
template <class T>
class Pool {
 public:
  template <class Make>
  std::unique_ptr<T> take(const Make& make) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!held_.empty()) {
        auto one = std::move(held_.back());
        held_.pop_back();
        return one;
      }
    }
    return make();
  }
  void give(std::unique_ptr<T> one) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.push_back(std::move(one));
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> held_;
};

struct Network {
  Stem stem;
  std::vector<Stage> stages;
  Norm last;
  int num_features = 0;
  Packed classifier;
  Floats classifier_bias;

  std::unique_ptr<Workspace> workspace(int height, int width) const {
    auto made = std::make_unique<Workspace>();
    const int pad = stem.kernel / 2;
    made->image = floats(static_cast<size_t>(height + 2 * pad) * (width + 2 * pad) * stem.channels);
    int h = stem.side(height), w = stem.side(width);
    if (stem.pool != StemPool::none) made->stem = floats(static_cast<size_t>(h) * w * stem.outputs);
    h = stem.pooled(h);
    w = stem.pooled(w);
    size_t map = 0, padded = 0, between = 0;
    for (const Stage& stage : stages) {
      for (const DenseLayer& layer : stage.layers)
        padded = std::max(padded, padded_map(nullptr, h, w, layer.conv).size());
      for (const DualPathBlock& block : stage.blocks) {
        padded = std::max(padded, padded_map(nullptr, h, w, block.b).size());
        h = (h - 1) / block.b.stride + 1;
        w = (w - 1) / block.b.stride + 1;
        between = std::max(between, static_cast<size_t>(h) * w * block.b.outputs);
      }
      map = std::max(map, static_cast<size_t>(h) * w * stage.ld);
      if (stage.transition.weights.outputs) {
        h /= 2;
        w /= 2;
      }
    }
    // A DPN's stem writes a map of its own width at the first stage's resolution.
    const size_t entry = static_cast<size_t>(stem.pooled(stem.side(height))) *
                         stem.pooled(stem.side(width)) * round_up(stem.outputs, LANES);
    for (Floats& one : made->maps) one = floats(std::max(map, entry));
    made->padded = floats(padded);
    made->between = floats(between);
    return made;
  }

  // image [channels, height, width] → features [num_features]; all threads of `part` call it.
  void run(const float* image, int height, int width, float* features, Workspace& shared,
           Scratch& own, Part part) const {
    const bool dual = !stages[0].blocks.empty();
    const long ld = dual ? round_up(stem.outputs, LANES) : stages[0].ld;
    int current = 0;
    Map map = run_stem(image, height, width, ld, shared, own, part);
    Padded bordered{};
    for (const Stage& stage : stages) {
      for (const DenseLayer& layer : stage.layers)
        run_layer(layer, map, bordered, shared, own, part);
      for (const DualPathBlock& block : stage.blocks)
        map = run_block(block, stage.ld, map, current, bordered, shared, own, part);
      if (stage.transition.weights.outputs) {
        const Stage& next = *(&stage + 1);
        current = 1 - current;
        const Map out{shared.maps[current].get(), map.height / 2, map.width / 2, next.ld};
        stage.transition.run(map, out, 0, false, part, own);
        part.meet();
        map = out;
      }
    }
    average(map, features, part);
  }

 private:
  static Padded padded_map(float* data, int height, int width, const Convolution& conv) {
    return Padded::of(data, height, width, round_up(conv.inputs, LANES));
  }

  Map run_stem(const float* image, int height, int width, long ld, Workspace& shared, Scratch& own,
               Part part) const {
    const int pad = stem.kernel / 2, c = stem.channels, whole = width + 2 * pad;
    float* padded = shared.image.get();
    int low, high;
    part.share(height, low, high);
    for (int y = low; y < high; ++y)
      for (int i = 0; i < c; ++i) {
        float* to = padded + (static_cast<size_t>(y + pad) * whole + pad) * c + i;
        const float* from = image + (static_cast<size_t>(i) * height + y) * width;
        for (int x = 0; x < width; ++x) to[static_cast<size_t>(x) * c] = from[x];
      }
    part.meet();
    const int h = stem.side(height), w = stem.side(width), run_length = stem.kernel * c;
    const bool pooled = stem.pool != StemPool::none;
    const Map out{pooled ? shared.stem.get() : shared.maps[0].get(), h, w,
                  pooled ? stem.outputs : ld};
    const int step = part.rows(out.pixels());
    part.share((out.pixels() + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, out.pixels() - p);
      product(
          stem.weights, rows,
          [&](int first, int count, float* to) {
            for (int r = 0; r < rows; ++r) {
              const size_t y = (p + r) / w * stem.stride, x = (p + r) % w * stem.stride;
              for (int done = 0; done < count;) {
                const int line = (first + done) / run_length, start = (first + done) % run_length;
                const int length = std::min(run_length - start, count - done);
                copy(to + static_cast<long>(r) * LDA + done,
                     padded + ((y + line) * whole + x) * c + start, length);
                done += length;
              }
            }
          },
          out.at(p), out.ld, {stem.bias.get(), false, stem.relu}, own.left.get());
    }
    part.meet();
    return pooled ? run_pool(out, ld, shared, part) : out;
  }

  Map run_pool(const Map& in, long ld, Workspace& shared, Part part) const {
    const Map out{shared.maps[0].get(), stem.pooled(in.height), stem.pooled(in.width), ld};
    // Both paddings of a 3×3 window of stride 2 (`StemMaxPool`): where the first one starts.
    const auto start = [&](int n) {
      return stem.pool == StemPool::pad1 ? -1 : -((((n + 1) / 2 - 1) * 2 + 3 - n) / 2);
    };
    const int top = start(in.height), left = start(in.width);
    int low, high;
    part.share(out.height, low, high);
    for (int y = low; y < high; ++y)
      for (int x = 0; x < out.width; ++x) {
        const int y0 = std::max(0, 2 * y + top), y1 = std::min(in.height, 2 * y + top + 3);
        const int x0 = std::max(0, 2 * x + left), x1 = std::min(in.width, 2 * x + left + 3);
        for (int c = 0; c < stem.outputs; c += LANES) {
          Vector most = load(in.at(y0 * in.width + x0) + c);
          for (int i = y0; i < y1; ++i)
            for (int j = x0; j < x1; ++j) {
              const Vector here = load(in.at(i * in.width + j) + c);
              most = here != here ? here : most < here ? here : most;  // NaN stays
            }
          store_some(out.at(y * out.width + x) + c, most, stem.outputs - c);
        }
      }
    part.meet();
    return out;
  }

  static void run_layer(const DenseLayer& layer, const Map& map, Padded& bordered,
                        Workspace& shared, Scratch& own, Part part) {
    const Padded padded =
        padded_map(shared.padded.get(), map.height, map.width, layer.conv);
    enter(padded, bordered, part);
    if (layer.bottleneck()) {
      layer.squeeze.run(map, padded, part, own);
    } else {
      int low, high;
      part.share(map.pixels(), low, high);
      for (int p = low; p < high; ++p)
        for (int c = 0; c < layer.conv.inputs; c += LANES)
          store_some(padded.at(p / map.width, p % map.width) + c,
                     layer.norm.apply(load(map.at(p) + c), c), layer.conv.inputs - c);
    }
    part.meet();
    layer.conv.run(padded, map, layer.column, part, own);
    part.meet();
  }

  static Map run_block(const DualPathBlock& block, long ld, const Map& in, int& current,
                       Padded& bordered, Workspace& shared, Scratch& own, Part part) {
    const int stride = block.b.stride;
    Map out = in;
    if (block.first) {
      current = 1 - current;
      out = {shared.maps[current].get(), (in.height - 1) / stride + 1, (in.width - 1) / stride + 1,
             ld};
      block.project.run(in, out, 0, false, part, own);
    }
    const Padded padded = padded_map(shared.padded.get(), in.height, in.width, block.b);
    enter(padded, bordered, part);
    block.a.run(in, padded, part, own);
    part.meet();
    const Map between{shared.between.get(), out.height, out.width, block.b.outputs};
    block.b.run(padded, between, 0, part, own);
    part.meet();
    block.to_residual.run(between, out, 0, true, part, own);
    block.to_dense.run(between, out, block.column, false, part, own);
    part.meet();
    return out;
  }

  // The border of `padded` is zero; `bordered` was the last map in that memory.
  static void enter(const Padded& padded, Padded& bordered, Part part) {
    if (padded.like(bordered)) return;
    padded.clear_border(part);
    bordered = padded;
  }

  void average(const Map& map, float* features, Part part) const {
    int low, high;
    part.share((num_features + LANES - 1) / LANES, low, high);
    for (int c = low * LANES; c < high * LANES; c += LANES) {
      Vector sum = splat(0.0f);
      for (int p = 0; p < map.pixels(); ++p) sum += last.apply(load(map.at(p) + c), c);
      store_some(features + c, sum / splat(static_cast<float>(map.pixels())), num_features - c);
    }
    part.meet();
  }
};

}  // namespace densepath
