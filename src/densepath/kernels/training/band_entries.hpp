// Bands of the grouped 3×3 convolutions of a training step: some rows of an image, of which a slice
// at a time is laid out as entries (see slices.hpp).
#pragma once

#include <vector>

#include "pixels.hpp"
#include "scratch.hpp"
#include "slices.hpp"

namespace densepath {

// Bands small enough that what a pass reads and writes of them stays in the second-level cache.
class Banding {
 public:
  // `maps`: how many a pass reads and writes, of which so many floats are to stay.
  Banding(const Shape& shape, int images, int maps, long floats = 80000)
      : images_(images), high_(shape.high) {
    const long row = static_cast<long>(shape.stride) * shape.width * shape.inputs * maps;
    const long rows = std::max(4L, floats / row);
    bands_ = static_cast<int>((high_ + rows - 1) / rows);
    rows_ = (high_ + bands_ - 1) / bands_;
    together_ = static_cast<int>(std::max(1L, floats / (row * rows_)));
  }
  int64_t count() const { return static_cast<int64_t>(images_) * bands_; }
  int rows() const { return rows_; }

  // prepare(band), and visit(slice, band), slice by slice of some bands at a time, so that a
  // slice's weights are fetched once for them all.
  template <class Prepare, class Visit>
  void each(Share share, int slices, const Prepare& prepare, const Visit& visit) const {
    for (int64_t first = share.low; first < share.high; first += together_) {
      const int64_t end = std::min(share.high, first + together_);
      for (int64_t b = first; b < end; ++b) prepare(band(b));
      for (int slice = 0; slice < slices; ++slice)
        for (int64_t b = first; b < end; ++b) visit(slice, band(b));
    }
  }

 private:
  Band band(int64_t number) const { return band_of(number, bands_, rows_, high_); }

  int images_, high_, bands_, rows_, together_;
};

// Asks for rows of a map in their order: slices read them in steps that no cache foresees.
template <class Number>
inline void fetch_rows(const MapsOf<Number>& maps, int image, int low, int high) {
  const int64_t first = (static_cast<int64_t>(image) * maps.height + std::max(0, low)) * maps.width;
  const int64_t rows = std::min(high, maps.height) - std::max(0, low);
  for (int64_t pixel = first; pixel < first + rows * maps.width; ++pixel)
    for (int c = 0; c < maps.channels; c += 64 / sizeof(Number))
      __builtin_prefetch(maps.at(pixel) + c);
}

// The same of a gradient and what it is corrected by.
inline void fetch_rows(const Corrected& gradient, int image, int low, int high) {
  fetch_rows(gradient.maps, image, low, high);
  if (gradient.constant && gradient.halved) fetch_rows(gradient.halved_outputs(), image, low, high);
  if (gradient.constant && !gradient.halved) fetch_rows(gradient.y, image, low, high);
}

// The entries of a slice's pixels: rows and columns of a map, with zeros outside.
template <class Entry>
struct EntriesOf {
  const Slices<Entry>& slices;
  int columns;
  Scratch data;

  EntriesOf(const Slices<Entry>& slices_, int rows, int columns_)
      : slices(slices_), columns(columns_), data(rows * columns * slices.apart() + LANES) {}
  float* at(int row, int column) const {
    return data.get() + (static_cast<long>(row) * columns + column) * slices.apart();
  }
  long line() const { return columns * slices.apart(); }

  // Rows from `y` on, columns from −1 on.
  template <class Source>
  void fill(const Source& source, int slice, int image, int y, int rows) const {
    const auto& maps = source.maps;
    for (int r = 0; r < rows; ++r) {
      const bool outside = y + r < 0 || y + r >= maps.height;
      const int inside = outside ? 0 : maps.width;
      zero(r, 0, 1);
      if (!outside)
        fill_row(source, slice, (static_cast<int64_t>(image) * maps.height + y + r) * maps.width,
                 at(r, 1));
      zero(r, 1 + inside, columns);
    }
  }

 private:
  void zero(int row, int low, int high) const {
    std::memset(at(row, low), 0, sizeof(float) * (high - low) * slices.apart());
  }

  // The last vectors first: what they write beyond their pixel, the others overwrite.
  template <class Source>
  void fill_row(const Source& source, int slice, int64_t pixel, float* row) const {
    const int wide = source.maps.width;
    const long apart = slices.apart();
    for (int v = slices.vectors - 1; v >= 0; --v) {
      const int c = slices.first(slice) + v * LANES;
      const auto read = source.reader(c, slices.channels - c);
      float* to = row + v * LANES / Entry::INPUTS;
      for (int x = 0; x < wide; ++x, to += apart) Entry::keep(to, read(pixel + x));
    }
  }
};

}  // namespace densepath
