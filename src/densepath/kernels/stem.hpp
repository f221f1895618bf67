// The first convolution in its two forms, and the max-pool behind it.
#pragma once

#include <variant>

#include "int8_stem.hpp"
#include "layers.hpp"
#include "plan.hpp"
#include "workspace.hpp"

namespace densepath {

struct FloatStem {
  Packed weights;  // [kernel · kernel · channels, outputs]
  Floats bias;
  bool relu = false;
};

struct Stem {
  int channels, kernel, stride, outputs;
  StemPool pool;
  std::variant<FloatStem, ByteStem> form;

  int side(int n) const { return (n - 1) / stride + 1; }
  int pooled(int n) const { return is_pooled() ? (n + 1) / 2 : n; }
  bool is_pooled() const { return pool != StemPool::none; }

  // image [channels, height, width] → the state; all threads of `part` call it.
  void run(const float* image, int height, int width, const Map& out, Workspace& shared,
           Scratch& own, Part part) const {
    if (const auto* bytes = std::get_if<ByteStem>(&form))
      run_bytes(*bytes, image, height, width, out, shared, own, part);
    else
      run_floats(std::get<FloatStem>(form), image, height, width, out, shared, own, part);
    part.meet();
  }

 private:
  void run_floats(const FloatStem& layer, const float* image, int height, int width, const Map& out,
                  Workspace& shared, Scratch& own, Part part) const {
    lay_out(image, height, width, shared.image.get(), part);
    part.meet();
    if (!is_pooled()) return multiply_floats(layer, width, out, shared, own, part);
    const Map whole{shared.stem.get(), side(height), side(width), outputs};
    multiply_floats(layer, width, whole, shared, own, part);
    part.meet();
    int low, high;
    part.share(out.height, low, high);
    for (int y = low; y < high; ++y)
      pool_row([&](int i) { return whole.at(i * whole.width); }, whole.height, whole.width, out, y);
  }

  // [channels, height, width] → the inside of [height, width, channels] with a border.
  void lay_out(const float* image, int height, int width, float* padded, Part part) const {
    const int pad = kernel / 2, whole = width + 2 * pad;
    int low, high;
    part.share(height, low, high);
    for (int y = low; y < high; ++y)
      for (int i = 0; i < channels; ++i) {
        float* to = padded + (static_cast<size_t>(y + pad) * whole + pad) * channels + i;
        const float* from = image + (static_cast<size_t>(i) * height + y) * width;
        for (int x = 0; x < width; ++x) to[static_cast<size_t>(x) * channels] = from[x];
      }
  }

  void multiply_floats(const FloatStem& layer, int width, const Map& out, Workspace& shared,
                       Scratch& own, Part part) const {
    const int whole = width + kernel / 2 * 2, run_length = kernel * channels, w = out.width;
    const float* padded = shared.image.get();
    const int step = part.rows(out.pixels());
    int low, high;
    part.share((out.pixels() + step - 1) / step, low, high);
    for (int u = low; u < high; ++u) {
      const int p = u * step, rows = std::min(step, out.pixels() - p);
      product(
          layer.weights, rows,
          [&](int first, int count, float* to) {
            for (int r = 0; r < rows; ++r) {
              const size_t y = (p + r) / w * stride, x = (p + r) % w * stride;
              for (int done = 0; done < count;) {
                const int line = (first + done) / run_length, start = (first + done) % run_length;
                const int length = std::min(run_length - start, count - done);
                copy(to + static_cast<long>(r) * LDA + done,
                     padded + ((y + line) * whole + x) * channels + start, length);
                done += length;
              }
            }
          },
          out.at(p), out.ld, {layer.bias.get(), false, layer.relu}, own.left.get());
    }
  }

  // The rows that a pooled row needs are made just before it.
  void run_bytes(const ByteStem& layer, const float* image, int height, int width, const Map& out,
                 Workspace& shared, Scratch& own, Part part) const {
    const ByteImage in{shared.byte_image.get(), width + kernel / 2 * 2, kernel, stride};
    layer.enter(image, height, width, in, part);
    part.meet();
    const int h = side(height), w = side(width);
    int low, high;
    part.share(out.height, low, high);
    if (!is_pooled()) {
      for (int y = low; y < high; ++y) layer.run(in, y, w, out.at(y * w), out.ld);
      return;
    }
    const size_t each = static_cast<size_t>(w) * outputs;
    float* held = own.result(3 * each);
    const auto row_of = [&](int y) { return held + y % 3 * each; };
    int done = std::max(0, 2 * low + pool_start(h));
    for (int y = low; y < high; ++y) {
      for (const int end = std::min(h, 2 * y + pool_start(h) + 3); done < end; ++done)
        layer.run(in, done, w, row_of(done), outputs);
      pool_row(row_of, h, w, out, y);
    }
  }

  // Both paddings of a 3×3 window of stride 2 (`StemMaxPool`): where the first one starts.
  int pool_start(int n) const {
    return pool == StemPool::pad1 ? -1 : -((((n + 1) / 2 - 1) * 2 + 3 - n) / 2);
  }

  // row_of(y) of the convolution's outputs → a row of `out`.
  template <class RowOf>
  void pool_row(const RowOf& row_of, int height, int width, const Map& out, int y) const {
    const int top = pool_start(height), left = pool_start(width);
    const int y0 = std::max(0, 2 * y + top), y1 = std::min(height, 2 * y + top + 3);
    for (int x = 0; x < out.width; ++x) {
      const int x0 = std::max(0, 2 * x + left), x1 = std::min(width, 2 * x + left + 3);
      for (int c = 0; c < outputs; c += LANES) {
        Vector most = load(row_of(y0) + x0 * outputs + c);
        for (int i = y0; i < y1; ++i)
          for (int j = x0; j < x1; ++j) {
            const Vector here = load(row_of(i) + j * outputs + c);
            most = here != here ? here : most < here ? here : most;  // NaN stays
          }
        store_some(out.at(y * out.width + x) + c, most, outputs - c);
      }
    }
  }
};

}  // namespace densepath
