// Plays the NPU and its driver: answers a test vector's input with that vector's output.
#include <ethosu_driver.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "program.h"
#include "vectors.h"

extern "C" int ethosu_init(struct ethosu_driver*, void* const, const void* fast_memory,
                           const std::size_t fast_memory_size, std::uint32_t, std::uint32_t) {
  std::printf("fast memory: %s, %zu bytes\n", fast_memory ? "given" : "none", fast_memory_size);
  return reinterpret_cast<std::uintptr_t>(fast_memory) % 32 != 0;
}

extern "C" void ethosu_irq_handler(struct ethosu_driver*) {}

#ifdef FIRST_VECTOR
extern "C" bool densepath_read_image(std::uint8_t* pixels) {
  static bool done = false;
  std::memcpy(pixels, densepath_vector_inputs, DENSEPATH_INPUT_BYTES);
  return !done && (done = true);
}
#endif

void PlayNpu(const std::uint8_t* input, char* output) {
  for (std::size_t at = 0; at < DENSEPATH_NUM_VECTORS; ++at) {
    if (!std::memcmp(input, densepath_vector_inputs + at * DENSEPATH_INPUT_BYTES,
                     DENSEPATH_INPUT_BYTES)) {
      std::memcpy(output, densepath_vector_outputs + at * DENSEPATH_OUTPUT_BYTES,
                  DENSEPATH_OUTPUT_BYTES);
      return;
    }
  }
  std::memset(output, 0, DENSEPATH_OUTPUT_BYTES);
}
