// Plays Arm's driver and its NPU on a PC, for `npu_board.py`: an operator's input that is a test
// vector's is answered with that vector's output, and the memory that the driver is given is checked
// as the driver does it.
#include <ethosu_driver.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "program.h"
#include "vectors.h"

namespace {

ethosu_driver* known = nullptr;
const void* fast = nullptr;
std::size_t fast_size = 0;

}  // namespace

extern "C" {

int ethosu_init(ethosu_driver* driver, void* const, const void* fast_memory,
                const std::size_t fast_memory_size, std::uint32_t, std::uint32_t) {
  known = driver;
  fast = fast_memory;
  fast_size = fast_memory_size;
  return 0;
}

void ethosu_irq_handler(ethosu_driver*) {}
ethosu_driver* ethosu_reserve_driver() { return known; }
void ethosu_release_driver(ethosu_driver*) {}

int ethosu_invoke_v3(ethosu_driver*, const void*, const int, std::uint64_t* const base_addr,
                     const std::size_t* base_addr_size, const int num_base_addr, void*) {
  if (fast != nullptr && base_addr_size[2] > fast_size) {
    std::printf("the fast memory is too small\n");
    return -1;
  }
  // Bases: 0 the weights, 1 the arena, 2 the fast memory, then inputs and outputs.
  const void* const input = reinterpret_cast<const void*>(base_addr[3]);
  void* const output = reinterpret_cast<void*>(base_addr[num_base_addr - 1]);
  for (std::size_t at = 0; at < DENSEPATH_NUM_VECTORS; ++at) {
    if (std::memcmp(input, densepath_vector_inputs + at * DENSEPATH_INPUT_BYTES,
                    DENSEPATH_INPUT_BYTES) == 0) {
      std::memcpy(output, densepath_vector_outputs + at * DENSEPATH_OUTPUT_BYTES,
                  DENSEPATH_OUTPUT_BYTES);
      return 0;
    }
  }
  return -1;
}

}  // extern "C"
