// Memory that is fetched into the cache while products of what is there are computed.
//
// A piece of a map is rows far apart, of which the processor sees no pattern; and a line that is
// only written is read first, too.
#pragma once

#include "maps.hpp"

namespace densepath {

class Ahead {
 public:
  void clear() { count_ = next_ = 0; }

  // Columns of `rows` pixels, which will be read or, with `write`, written.
  template <class Number>
  void add(const MapsOf<Number>& map, int64_t pixel, int64_t rows, int first, int columns) {
    rows = std::min(rows, map.pixels() - pixel);
    if (rows <= 0 || count_ == MOST) return;
    const auto start = reinterpret_cast<uintptr_t>(map.at(pixel) + first) / LINE * LINE;
    const auto end = reinterpret_cast<uintptr_t>(map.at(pixel) + first + columns);
    pieces_[count_++] = {reinterpret_cast<const char*>(start), map.ld * sizeof(Number),
                         static_cast<int>((end - start + LINE - 1) / LINE), static_cast<int>(rows)};
  }

  int64_t lines() const {
    int64_t sum = 0;
    for (int i = next_; i < count_; ++i)
      sum += static_cast<int64_t>(pieces_[i].lines) * pieces_[i].rows;
    return sum;
  }

  // Fetch some rows' lines, of at least `lines`.
  void fetch(int lines) {
    while (lines > 0 && next_ < count_) {
      Piece& piece = pieces_[next_];
      for (int i = 0; i < piece.lines; ++i) __builtin_prefetch(piece.from + i * LINE, 0, 2);
      lines -= piece.lines;
      piece.from += piece.step;
      if (--piece.rows == 0) ++next_;
    }
  }

 private:
  static constexpr int MOST = 6, LINE = 64;
  struct Piece {
    const char* from;
    size_t step;
    int lines, rows;
  };
  Piece pieces_[MOST];
  int count_ = 0, next_ = 0;
};

}  // namespace densepath
