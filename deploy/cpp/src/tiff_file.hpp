// A TIFF in memory, opened by libtiff.
#pragma once

#include <tiffio.h>

#include <cstdint>
#include <memory>

#include "bytes.hpp"

namespace densepath {

// A file in memory, as libtiff's functions want it.
struct TiffMemory {
  Bytes file;
  uint64_t at = 0;
};

struct CloseTiff {
  void operator()(TIFF* tiff) const { TIFFClose(tiff); }
};
using TiffFile = std::unique_ptr<TIFF, CloseTiff>;

// The file, opened without libtiff's words on standard error; nothing where it is damaged. `memory`
// must live as long.
TiffFile open_tiff(TiffMemory& memory);

}  // namespace densepath
