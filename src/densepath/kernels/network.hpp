// A DenseNet or DPN as a list of stages, and its way through memory.
#pragma once

#include <mutex>
#include <stdexcept>
#include <vector>

#include "arch.hpp"
#include "int8_layers.hpp"
#include "int8_stem.hpp"
#include "layers.hpp"

namespace densepath {

struct Stem {
  int channels, kernel, stride, outputs;
  bool relu;
  StemPool pool;
  Packed weights;  // [kernel · kernel · channels, outputs]
  Floats bias;
  ByteStem bytes;  // in place of `weights`

  int side(int n) const { return (n - 1) / stride + 1; }
  int pooled(int n) const { return pool == StemPool::none ? n : (n + 1) / 2; }
};

// A layer of a dense block: BN-ReLU-1×1-(BN)-ReLU-3×3, or BN-ReLU-3×3 without `squeeze`.
struct DenseLayer {
  int column;  // where its features go
  Norm norm;
  Pointwise squeeze;
  Convolution conv;
  BytePointwise byte_squeeze;  // in place of `squeeze`
  ByteConvolution byte_conv;   // in place of `conv`
  bool bottleneck() const { return byte_squeeze || squeeze.weights.outputs > 0; }
};

// A block of a DPN. The first of a stage has `project`.
struct DualPathBlock {
  bool first;
  int base, column;  // width of the residual path; where the new dense features go
  Pointwise project, a, to_residual, to_dense;
  Convolution b;
  BytePointwise byte_project, byte_a, byte_to_residual, byte_to_dense;  // in place of those
  ByteConvolution byte_b;
};

struct Stage {
  long ld;  // of its map: the channels after its last layer, rounded up
  std::vector<DenseLayer> layers;
  Pointwise transition;  // out of a dense block; none after the last
  BytePointwise byte_transition;
  bool last() const { return !byte_transition && !transition.weights.outputs; }
  std::vector<DualPathBlock> blocks;
};

// Memory for one image on its way.
struct Workspace {
  Floats image, stem, maps[2], padded, between;
  ByteBuffer byte_image, byte_padded, byte_between;
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
  ByteClassifier byte_classifier;  // in place of `classifier`
  int classes() const {
    return byte_classifier ? byte_classifier.weights.outputs : classifier.outputs;
  }

  std::unique_ptr<Workspace> workspace(int height, int width) const {
    auto made = std::make_unique<Workspace>();
    const int pad = stem.kernel / 2;
    const size_t image = static_cast<size_t>(height + 2 * pad) * (width + 2 * pad);
    if (stem.bytes)
      made->byte_image = stem.bytes.blank(image);
    else
      made->image = floats(image * stem.channels);
    int h = stem.side(height), w = stem.side(width);
    if (stem.pool != StemPool::none) made->stem = floats(static_cast<size_t>(h) * w * stem.outputs);
    h = stem.pooled(h);
    w = stem.pooled(w);
    size_t map = 0, padded = 0, between = 0, byte_padded = 0, byte_between = 0;
    for (const Stage& stage : stages) {
      for (const DenseLayer& layer : stage.layers) {
        padded = std::max(padded, padded_map(nullptr, h, w, layer.conv).size());
        byte_padded = std::max(byte_padded, padded_map(nullptr, h, w, layer.byte_conv).size());
      }
      for (const DualPathBlock& block : stage.blocks) {
        padded = std::max(padded, padded_map(nullptr, h, w, block.b).size());
        byte_padded = std::max(byte_padded, padded_map(nullptr, h, w, block.byte_b).size());
        h = (h - 1) / block.b.stride + 1;
        w = (w - 1) / block.b.stride + 1;
        between = std::max(between, static_cast<size_t>(h) * w * block.b.outputs);
        byte_between = std::max(byte_between,
                                static_cast<size_t>(h) * w * round_up(block.b.outputs, 4));
      }
      map = std::max(map, static_cast<size_t>(h) * w * stage.ld);
      if (!stage.last()) {
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
    made->byte_padded = bytes(byte_padded);
    made->byte_between = bytes(byte_between);
    return made;
  }

  // image [channels, height, width] → features [num_features]; all threads of `part` call it.
  void run(const float* image, int height, int width, float* features, Workspace& shared,
           Scratch& own, Part part) const {
    const bool dual = !stages[0].blocks.empty();
    const long ld = dual ? round_up(stem.outputs, LANES) : stages[0].ld;
    int current = 0;
    Map map = run_stem(image, height, width, ld, shared, own, part);
    Bordered bordered;
    for (const Stage& stage : stages) {
      for (const DenseLayer& layer : stage.layers)
        run_layer(layer, map, bordered, shared, own, part);
      for (const DualPathBlock& block : stage.blocks)
        map = run_block(block, stage.ld, map, current, bordered, shared, own, part);
      if (!stage.last()) {
        const Stage& next = *(&stage + 1);
        current = 1 - current;
        const Map out{shared.maps[current].get(), map.height / 2, map.width / 2, next.ld};
        run_pointwise(stage.transition, stage.byte_transition, map, out, 0, false, part, own);
        part.meet();
        map = out;
      }
    }
    average(map, features, part);
  }

 private:
  // The last maps in the memory of the padded ones, whose borders are zero.
  struct Bordered {
    Padded floats{};
    PaddedBytes bytes{};
  };

  static Padded padded_map(float* data, int height, int width, const Convolution& conv) {
    return Padded::of(data, height, width, round_up(conv.inputs, LANES));
  }
  static PaddedBytes padded_map(uint8_t* data, int height, int width, const ByteConvolution& conv) {
    return PaddedBytes::of(data, height, width, conv.ld);
  }

  Map run_stem(const float* image, int height, int width, long ld, Workspace& shared, Scratch& own,
               Part part) const {
    if (stem.bytes) return run_byte_stem(image, height, width, ld, shared, own, part);
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

  // Both paddings of a 3×3 window of stride 2 (`StemMaxPool`): where the first one starts.
  int pool_start(int n) const {
    return stem.pool == StemPool::pad1 ? -1 : -((((n + 1) / 2 - 1) * 2 + 3 - n) / 2);
  }

  // row_of(y) of the stem's outputs → a row of `out`.
  template <class RowOf>
  void pool_row(const RowOf& row_of, int height, int width, const Map& out, int y) const {
    const int top = pool_start(height), left = pool_start(width);
    const int y0 = std::max(0, 2 * y + top), y1 = std::min(height, 2 * y + top + 3);
    for (int x = 0; x < out.width; ++x) {
      const int x0 = std::max(0, 2 * x + left), x1 = std::min(width, 2 * x + left + 3);
      for (int c = 0; c < stem.outputs; c += LANES) {
        Vector most = load(row_of(y0) + x0 * stem.outputs + c);
        for (int i = y0; i < y1; ++i)
          for (int j = x0; j < x1; ++j) {
            const Vector here = load(row_of(i) + j * stem.outputs + c);
            most = here != here ? here : most < here ? here : most;  // NaN stays
          }
        store_some(out.at(y * out.width + x) + c, most, stem.outputs - c);
      }
    }
  }

  Map run_pool(const Map& in, long ld, Workspace& shared, Part part) const {
    const Map out{shared.maps[0].get(), stem.pooled(in.height), stem.pooled(in.width), ld};
    int low, high;
    part.share(out.height, low, high);
    for (int y = low; y < high; ++y)
      pool_row([&](int i) { return in.at(i * in.width); }, in.height, in.width, out, y);
    part.meet();
    return out;
  }

  // The rows that a pooled row needs are made just before it.
  Map run_byte_stem(const float* image, int height, int width, long ld, Workspace& shared,
                    Scratch& own, Part part) const {
    const ByteImage in{shared.byte_image.get(), width + stem.kernel / 2 * 2, stem.kernel,
                       stem.stride};
    stem.bytes.enter(image, height, width, in, part);
    part.meet();
    const int h = stem.side(height), w = stem.side(width);
    const Map out{shared.maps[0].get(), stem.pooled(h), stem.pooled(w), ld};
    int low, high;
    part.share(out.height, low, high);
    if (stem.pool == StemPool::none) {
      for (int y = low; y < high; ++y) stem.bytes.run(in, y, w, out.at(y * w), ld);
    } else {
      const size_t each = static_cast<size_t>(w) * stem.outputs;
      float* held = own.result(3 * each);
      const auto row_of = [&](int y) { return held + y % 3 * each; };
      int done = std::max(0, 2 * low + pool_start(h));
      for (int y = low; y < high; ++y) {
        for (const int end = std::min(h, 2 * y + pool_start(h) + 3); done < end; ++done)
          stem.bytes.run(in, done, w, row_of(done), stem.outputs);
        pool_row(row_of, h, w, out, y);
      }
    }
    part.meet();
    return out;
  }

  static void run_pointwise(const Pointwise& floats, const BytePointwise& bytes, const Map& in,
                            const Map& out, int column, bool add, Part part, Scratch& own) {
    if (!bytes) return floats.run(in, out, column, add, part, own);
    const auto row_of = [&](int p) -> Row { return out.at(p) + column; };
    bytes.run(in, out.width, out.pixels(), row_of, add, part, own);
  }

  // Floats into a padded map of floats, which comes back.
  static Padded fill(const Pointwise& floats, const BytePointwise& bytes, const Convolution& conv,
                     const Map& in, Bordered& bordered, Workspace& shared, Part part,
                     Scratch& own) {
    const Padded padded = padded_map(shared.padded.get(), in.height, in.width, conv);
    enter(padded, bordered.floats, part);
    if (bytes)
      bytes.run(in, in.width, in.pixels(),
                [&](int p) -> Row { return padded.at(p / in.width, p % in.width); }, false, part,
                own);
    else
      floats.run(in, padded, part, own);
    return padded;
  }

  // Levels into a padded map of bytes, which comes back.
  static PaddedBytes fill(const Pointwise& floats, const BytePointwise& bytes,
                          const Convolution& float_conv, const ByteConvolution& conv,
                          const Map& in, Bordered& bordered, Workspace& shared, Part part,
                          Scratch& own) {
    const PaddedBytes padded = padded_map(shared.byte_padded.get(), in.height, in.width, conv);
    enter(padded, bordered.bytes, part);
    const auto at = [&](int p) { return padded.at(p / in.width, p % in.width); };
    if (!bytes) {
      const Padded held =
          fill(floats, bytes, float_conv, in, bordered, shared, part, own);
      part.meet();
      int low, high;
      part.share(in.pixels(), low, high);
      for (int p = low; p < high; ++p)
        conv.enter(held.at(p / in.width, p % in.width), at(p), own);
    } else if (!conv.spread()) {
      bytes.run(in, in.width, in.pixels(), [&](int p) -> Row { return at(p); }, false, part, own);
    } else {
      const long ld = round_up(conv.inputs, 64);
      uint8_t* held = own.between(ROWS * ld);
      bytes.run(
          in, in.width, in.pixels(), [&](int p) -> Row { return held + p % ROWS * ld; }, false,
          part, own, [&](int p, int count) {
            for (int r = p; r < p + count; ++r) conv.place(held + r % ROWS * ld, at(r));
          });
    }
    return padded;
  }

  static void run_layer(const DenseLayer& layer, const Map& map, Bordered& bordered,
                        Workspace& shared, Scratch& own, Part part) {
    const auto row_of = [&](int p) -> Row { return map.at(p) + layer.column; };
    if (layer.byte_conv) {
      const PaddedBytes padded =
          layer.bottleneck() ? fill(layer.squeeze, layer.byte_squeeze, layer.conv, layer.byte_conv,
                                    map, bordered, shared, part, own)
                             : fill_plain(layer, map, bordered, shared, own, part);
      part.meet();
      layer.byte_conv.run(padded, map.height, map.width, row_of, part);
    } else if (layer.bottleneck()) {
      const Padded padded = fill(layer.squeeze, layer.byte_squeeze, layer.conv, map, bordered,
                                 shared, part, own);
      part.meet();
      layer.conv.run(padded, map, layer.column, part, own);
    } else {
      const Padded padded = padded_map(shared.padded.get(), map.height, map.width, layer.conv);
      enter(padded, bordered.floats, part);
      int low, high;
      part.share(map.pixels(), low, high);
      for (int p = low; p < high; ++p)
        for (int c = 0; c < layer.conv.inputs; c += LANES)
          store_some(padded.at(p / map.width, p % map.width) + c,
                     layer.norm.apply(load(map.at(p) + c), c), layer.conv.inputs - c);
      part.meet();
      layer.conv.run(padded, map, layer.column, part, own);
    }
    part.meet();
  }

  // The levels of a layer without a bottleneck.
  static PaddedBytes fill_plain(const DenseLayer& layer, const Map& map, Bordered& bordered,
                                Workspace& shared, Scratch& own, Part part) {
    const PaddedBytes padded =
        padded_map(shared.byte_padded.get(), map.height, map.width, layer.byte_conv);
    enter(padded, bordered.bytes, part);
    int low, high;
    part.share(map.pixels(), low, high);
    for (int p = low; p < high; ++p)
      layer.byte_conv.enter(map.at(p), padded.at(p / map.width, p % map.width), own);
    return padded;
  }

  static Map run_block(const DualPathBlock& block, long ld, const Map& in, int& current,
                       Bordered& bordered, Workspace& shared, Scratch& own, Part part) {
    const int stride = block.b.stride;
    Map out = in;
    if (block.first) {
      current = 1 - current;
      out = {shared.maps[current].get(), (in.height - 1) / stride + 1, (in.width - 1) / stride + 1,
             ld};
      run_pointwise(block.project, block.byte_project, in, out, 0, false, part, own);
    }
    const Map between{shared.between.get(), out.height, out.width, block.b.outputs};
    const ByteMap byte_between{shared.byte_between.get(), out.height, out.width,
                               round_up(block.b.outputs, 4)};
    const bool levels = static_cast<bool>(block.byte_to_dense);
    if (block.byte_b) {
      const PaddedBytes padded = fill(block.a, block.byte_a, block.b, block.byte_b, in, bordered,
                                      shared, part, own);
      part.meet();
      const auto row_of = [&](int p) -> Row {
        return levels ? static_cast<Row>(byte_between.at(p)) : between.at(p);
      };
      block.byte_b.run(padded, out.height, out.width, row_of, part);
    } else {
      const Padded padded =
          fill(block.a, block.byte_a, block.b, in, bordered, shared, part, own);
      part.meet();
      block.b.run(padded, between, 0, part, own);
    }
    part.meet();
    leave(block, between, byte_between, out, part, own);
    part.meet();
    return out;
  }

  // The last convolution of a block, onto both paths.
  static void leave(const DualPathBlock& block, const Map& between, const ByteMap& levels,
                    const Map& out, Part part, Scratch& own) {
    const auto residual = [&](int p) -> Row { return out.at(p); };
    const auto dense = [&](int p) -> Row { return out.at(p) + block.column; };
    if (block.byte_to_dense && block.byte_b) {
      block.byte_to_residual.run(levels, residual, true, part);
      block.byte_to_dense.run(levels, dense, false, part);
    } else {
      run_pointwise(block.to_residual, block.byte_to_residual, between, out, 0, true, part, own);
      run_pointwise(block.to_dense, block.byte_to_dense, between, out, block.column, false, part,
                    own);
    }
  }

  // The border of `padded` is zero; `bordered` was the last map in that memory.
  template <class T>
  static void enter(const PaddedOf<T>& padded, PaddedOf<T>& bordered, Part part) {
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
