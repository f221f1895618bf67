// The library that `engines/native.py` calls: a network from tensors, logits from images.
#include <exception>
#include <string>

#include "build.hpp"
#include "needs.hpp"
#include "resize.hpp"
#include "session.hpp"

namespace densepath {
namespace {

thread_local std::string failure;

// `numbers` as `engines/native.py` lists them.
Arch read_arch(const int32_t* numbers, double bn_eps) {
  Arch arch;
  arch.dual = *numbers++ != 0;
  arch.stem_pool = static_cast<StemPool>(*numbers++);
  for (int* number : {&arch.stem_width, &arch.growth_rate, &arch.bottleneck, &arch.k_r,
                      &arch.groups, &arch.base_factor, &arch.channels, &arch.height, &arch.width})
    *number = *numbers++;
  const int stages = *numbers++;
  arch.blocks.assign(numbers, numbers + stages);
  if (arch.dual) arch.dense_increment.assign(numbers + stages, numbers + 2 * stages);
  arch.bn_eps = bn_eps;
  return arch;
}

}  // namespace
}  // namespace densepath

extern "C" {

// The reason of the last failure in this thread.
const char* densepath_failure() { return densepath::failure.c_str(); }

// A network of `count` tensors, or null. They are not needed afterwards. Those that are not
// `quantised` are floats, the others bytes.
void* densepath_open(const int32_t* numbers, double bn_eps, const char* const* names,
                     const void* const* tensors, const int64_t* sizes, const int32_t* quantised,
                     int32_t count) {
  try {
    densepath::Tensors named;
    for (int i = 0; i < count; ++i) {
      densepath::Tensor& tensor = named[names[i]] = {nullptr, sizes[i]};
      if (quantised[i])
        tensor.bytes = static_cast<const int8_t*>(tensors[i]);
      else
        tensor.data = static_cast<const float*>(tensors[i]);
    }
    const densepath::Arch arch = densepath::read_arch(numbers, bn_eps);
    return new densepath::Session(densepath::Builder(arch, named).build());
  } catch (const std::exception& error) {
    densepath::failure = error.what();
    return nullptr;
  }
}

// images [count, channels, height, width] → logits [count, classes]; 0, or 1 on failure.
int densepath_run(void* network, const float* images, int32_t count, int32_t height, int32_t width,
                  float* logits, int32_t threads) {
  try {
    static_cast<densepath::Session*>(network)->run(images, count, height, width, logits, threads);
    return 0;
  } catch (const std::exception& error) {
    densepath::failure = error.what();
    return 1;
  }
}

// Whether `densepath_resize` is quicker than Pillow on this CPU.
int densepath_resizes_quickly() { return densepath::RESIZES_QUICKLY; }

// image [height, width, channels] → to [num_rows, num_columns, channels], both with 64 bytes to
// spare. For each new row and column its first old one and its weights.
void densepath_resize(const uint8_t* image, int32_t width, int32_t channels,
                      const int32_t* row_first, const int32_t* row_weights, int32_t num_rows,
                      int32_t row_taps, const int32_t* column_first, const int32_t* column_weights,
                      int32_t num_columns, int32_t column_taps, int32_t height_first, uint8_t* to) {
  densepath::resize(image, width, channels, {num_rows, row_taps, row_first, row_weights},
                    {num_columns, column_taps, column_first, column_weights}, height_first != 0, to);
}

void densepath_close(void* network) { delete static_cast<densepath::Session*>(network); }
}
