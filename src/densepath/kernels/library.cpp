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

constexpr int NAMES = 3, NUMBERS = 12;  // of a layer

// Layers as `models/plan.py:serialise` lists them.
Plan read_plan(const char* const* names, const int32_t* numbers, int count) {
  Plan plan;
  for (int i = 0; i < count; ++i, names += NAMES, numbers += NUMBERS) {
    PlanLayer layer{names[0], names[1], names[2]};
    layer.kind = static_cast<Kind>(numbers[0]);
    layer.inputs = numbers[1];
    layer.outputs = numbers[2];
    layer.kernel = numbers[3];
    layer.stride = numbers[4];
    layer.groups = numbers[5];
    layer.reads = static_cast<Reads>(numbers[6]);
    layer.writes = static_cast<Writes>(numbers[7]);
    layer.pool = static_cast<StemPool>(numbers[8]);
    layer.averaged = numbers[9] != 0;
    layer.base = numbers[10];
    layer.part = numbers[11];
    plan.layers.push_back(std::move(layer));
  }
  return plan;
}

}  // namespace
}  // namespace densepath

extern "C" {

// The reason of the last failure in this thread.
const char* densepath_failure() { return densepath::failure.c_str(); }

// A network of `num_layers` layers, for images of so many channels and this usual size, or null.
// Its tensors are not needed afterwards. Those that are not `quantised` are floats, the others
// bytes. `bfloat16`: the arithmetic of the layers of floats.
void* densepath_open(const char* const* layer_names, const int32_t* layer_numbers,
                     int32_t num_layers, double bn_eps, int32_t channels, int32_t height,
                     int32_t width, const char* const* names, const void* const* tensors,
                     const int64_t* sizes, const int32_t* quantised, int32_t num_tensors,
                     int32_t bfloat16) {
  try {
    densepath::Tensors named;
    for (int i = 0; i < num_tensors; ++i) {
      densepath::Tensor& tensor = named[names[i]] = {nullptr, sizes[i]};
      if (quantised[i])
        tensor.bytes = static_cast<const int8_t*>(tensors[i]);
      else
        tensor.data = static_cast<const float*>(tensors[i]);
    }
    densepath::Plan plan = densepath::read_plan(layer_names, layer_numbers, num_layers);
    plan.bn_eps = bn_eps;
    plan.channels = channels;
    plan.height = height;
    plan.width = width;
    const auto arithmetic =
        bfloat16 ? densepath::Arithmetic::bfloat16 : densepath::Arithmetic::float32;
    return new densepath::Session(densepath::Builder(plan, named, arithmetic).build());
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

// Whether this processor multiplies bfloat16; others compute the same in float32, slower.
int densepath_has_bfloat16() { return densepath::HAS_BFLOAT16; }
int densepath_has_amx() { return densepath::may_use_squares(); }

// Whether its product of bfloat16 is right; a network in bfloat16 is refused where it is not.
int densepath_bfloat16_is_right() { return densepath::bfloat16_is_right(); }

// Whether `densepath_resize` is quicker than Pillow on this CPU.
int densepath_resizes_quickly() { return densepath::RESIZES_QUICKLY; }

// image [height, width, channels] → to [num_rows, num_columns, channels], both with 64 bytes to
// spare. For each new row and column its first old one and its weights.
void densepath_resize(const uint8_t* image, int32_t width, int32_t channels,
                      const int32_t* row_first, const int32_t* row_weights, int32_t num_rows,
                      int32_t row_taps, const int32_t* column_first, const int32_t* column_weights,
                      int32_t num_columns, int32_t column_taps, int32_t height_first, uint8_t* to) {
  densepath::resize(image, width, channels, {num_rows, row_taps, row_first, row_weights},
                    {num_columns, column_taps, column_first, column_weights}, height_first != 0,
                    to);
}

void densepath_close(void* network) { delete static_cast<densepath::Session*>(network); }
}
