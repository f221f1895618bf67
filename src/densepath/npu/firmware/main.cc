// Runs the program of this folder with TensorFlow Lite Micro and Arm's Ethos-U driver.
//
// Yours: densepath_read_image, which gets an image, and what main() does with the scores. What
// depends on the network is in program.h, labels.c and program.S; README.md says how to build.

#include <ethosu_driver.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "program.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
#ifdef DENSEPATH_TEST_VECTORS  // what `densepath npu vectors` wrote
#include "vectors.h"
#endif

// -- The board ------------------------------------------------------------------------------------

#ifdef CMSIS_device_header  // as -DCMSIS_device_header='"ARMCM55.h"': interrupts and caches
#include CMSIS_device_header
#elif defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#error "name your device's CMSIS header: -DCMSIS_device_header='\"ARMCM55.h\"'"
#endif
#ifdef CMSIS_device_header
#if !defined(DENSEPATH_NPU_BASE) || !defined(DENSEPATH_NPU_IRQ)
#error \
    "name the NPU's address and interrupt: -DDENSEPATH_NPU_BASE=0x48102000 -DDENSEPATH_NPU_IRQ=56"
#endif
#endif
#ifndef DENSEPATH_NPU_BASE  // a PC, with a driver that only plays an NPU
#define DENSEPATH_NPU_BASE 0
#endif
#ifndef DENSEPATH_NPU_SECURE  // the security state that the NPU works in
#define DENSEPATH_NPU_SECURE 1
#endif
#ifndef DENSEPATH_NPU_PRIVILEGED
#define DENSEPATH_NPU_PRIVILEGED 1
#endif
// Where the linker puts what: README.md says which memory each of them belongs in.
#ifndef DENSEPATH_ARENA_SECTION
#define DENSEPATH_ARENA_SECTION ".bss.densepath_arena"
#endif
#ifndef DENSEPATH_FAST_SECTION
#define DENSEPATH_FAST_SECTION ".bss.densepath_fast"
#endif

namespace {

// 32: the lines of a data cache, of which none may be half the NPU's and half somebody else's.
alignas(32)
    __attribute__((section(DENSEPATH_ARENA_SECTION))) std::uint8_t arena[DENSEPATH_ARENA_BYTES];

#if DENSEPATH_FAST_BYTES > 0
alignas(32)
    __attribute__((section(DENSEPATH_FAST_SECTION))) std::uint8_t fast_memory[DENSEPATH_FAST_BYTES];
constexpr std::size_t kFastBytes = sizeof fast_memory;
#else
// The NPU works in the arena alone. Named here, any memory would be taken in place of it.
constexpr std::uint8_t* fast_memory = nullptr;
constexpr std::size_t kFastBytes = 0;
#endif

ethosu_driver npu;
float scores[DENSEPATH_NUM_CLASSES];

}  // namespace

#if defined(__DCACHE_PRESENT) && __DCACHE_PRESENT == 1U
// The driver calls these before and after the NPU works. The whole cache: it has fewer lines than
// the arena. What the CPU wrote last, the pixels, was cleaned before, so that nothing of the CPU's
// lands on what the NPU wrote.
#if ETHOSU_DRIVER_VERSION_MAJOR >= 1
extern "C" void ethosu_flush_dcache(const std::uint64_t*, const std::size_t*, int) {
  SCB_CleanDCache();
}
extern "C" void ethosu_invalidate_dcache(const std::uint64_t*, const std::size_t*, int) {
  SCB_CleanInvalidateDCache();
}
#else
extern "C" void ethosu_flush_dcache(std::uint32_t*, std::size_t) { SCB_CleanDCache(); }
extern "C" void ethosu_invalidate_dcache(std::uint32_t*, std::size_t) {
  SCB_CleanInvalidateDCache();
}
#endif
#endif

extern "C" void densepath_npu_interrupt() { ethosu_irq_handler(&npu); }

// The next image as the network takes it: DENSEPATH_INPUT_HEIGHT rows of DENSEPATH_INPUT_WIDTH
// pixels of DENSEPATH_INPUT_CHANNELS bytes, 0 to 255, not normalised. False: there is none.
// Define your own; this one gives a single grey image.
extern "C" __attribute__((weak)) bool densepath_read_image(std::uint8_t* pixels) {
  static bool done = false;
  std::memset(pixels, 128, DENSEPATH_INPUT_BYTES);
  return !done && (done = true);
}

namespace {

// -- The network ----------------------------------------------------------------------------------

bool StartNpu() {
  void* const base = reinterpret_cast<void*>(static_cast<std::uintptr_t>(DENSEPATH_NPU_BASE));
  if (ethosu_init(&npu, base, fast_memory, kFastBytes, DENSEPATH_NPU_SECURE,
                  DENSEPATH_NPU_PRIVILEGED) != 0) {
    MicroPrintf("the NPU cannot be started");
    return false;
  }
#ifdef CMSIS_device_header
  const auto interrupt = static_cast<IRQn_Type>(DENSEPATH_NPU_IRQ);
  // Needs the table of vectors in RAM; one in flash names densepath_npu_interrupt itself.
  NVIC_SetVector(interrupt, reinterpret_cast<std::uint32_t>(&densepath_npu_interrupt));
  NVIC_EnableIRQ(interrupt);
#endif
  return true;
}

// Whether the file that was linked is the one that program.h was written for.
bool IsAsDescribed(tflite::MicroInterpreter& interpreter) {
  const TfLiteTensor* const input = interpreter.input(0);
  const TfLiteTensor* const output = interpreter.output(0);
  return input->type == kTfLiteUInt8 && input->bytes == DENSEPATH_INPUT_BYTES &&
         output->type == (DENSEPATH_OUTPUT_IS_FLOAT ? kTfLiteFloat32 : kTfLiteInt8) &&
         output->bytes == DENSEPATH_OUTPUT_BYTES;
}

// The interpreter with its tensors in the arena, or nullptr after saying why not.
tflite::MicroInterpreter* StartInterpreter() {
  static tflite::MicroMutableOpResolver<DENSEPATH_NUM_OPERATORS> resolver;
  if (!DENSEPATH_ADD_OPERATORS(resolver)) return nullptr;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(densepath_program), resolver, arena,
                                              sizeof arena);
  if (interpreter.AllocateTensors() != kTfLiteOk) return nullptr;
  MicroPrintf("arena: %d of %d bytes", static_cast<int>(interpreter.arena_used_bytes()),
              static_cast<int>(sizeof arena));
  if (!IsAsDescribed(interpreter)) {
    MicroPrintf("program.h belongs to another program");
    return nullptr;
  }
  return &interpreter;
}

// The network's answer to class `number`, before the softmax.
float Logit(const TfLiteTensor& output, int number) {
#if DENSEPATH_OUTPUT_IS_FLOAT
  return output.data.f[number];
#else
  return DENSEPATH_OUTPUT_SCALE * (output.data.int8[number] - DENSEPATH_OUTPUT_ZERO_POINT);
#endif
}

// `scores` has each class's probability; the best class's number.
[[maybe_unused]] int Score(const TfLiteTensor& output) {
  int best = 0;
  for (int number = 1; number < DENSEPATH_NUM_CLASSES; ++number) {
    if (Logit(output, number) > Logit(output, best)) best = number;
  }
  const float highest = Logit(output, best);
  float sum = 0.0f;
  for (int number = 0; number < DENSEPATH_NUM_CLASSES; ++number) {
    const float logit = Logit(output, number);
    // Of several labels at once each has a probability of its own.
    scores[number] =
        DENSEPATH_MULTI_LABEL ? 1.0f / (1.0f + std::exp(-logit)) : std::exp(logit - highest);
    sum += scores[number];
  }
  for (int number = 0; number < DENSEPATH_NUM_CLASSES && !DENSEPATH_MULTI_LABEL; ++number) {
    scores[number] /= sum;
  }
  return best;
}

#ifdef DENSEPATH_TEST_VECTORS
// The number of vectors whose output is another than densepath's simulator gave.
int CountWrongVectors(tflite::MicroInterpreter& interpreter) {
  int wrong = 0;
  for (int number = 0; number < DENSEPATH_NUM_VECTORS; ++number) {
    const std::size_t at = static_cast<std::size_t>(number);
    std::memcpy(interpreter.input(0)->data.uint8,
                densepath_vector_inputs + at * DENSEPATH_INPUT_BYTES, DENSEPATH_INPUT_BYTES);
    const bool equal = interpreter.Invoke() == kTfLiteOk &&
                       std::memcmp(interpreter.output(0)->data.raw,
                                   densepath_vector_outputs + at * DENSEPATH_OUTPUT_BYTES,
                                   DENSEPATH_OUTPUT_BYTES) == 0;
    if (!equal) MicroPrintf("vector %d differs", number);
    wrong += !equal;
  }
  MicroPrintf("%d of %d vectors are equal", DENSEPATH_NUM_VECTORS - wrong, DENSEPATH_NUM_VECTORS);
  return wrong;
}
#endif

}  // namespace

// Clocks, console and caches are set up before, by your start-up code.
int main() {
  if (!StartNpu()) return 1;
  tflite::MicroInterpreter* const interpreter = StartInterpreter();
  if (interpreter == nullptr) return 1;
#ifdef DENSEPATH_TEST_VECTORS
  return CountWrongVectors(*interpreter) == 0 ? 0 : 1;
#else
  // The input's bytes are the NPU's to overwrite: every image is written anew.
  while (densepath_read_image(interpreter->input(0)->data.uint8)) {
    if (interpreter->Invoke() != kTfLiteOk) return 1;
    const int best = Score(*interpreter->output(0));
    const int permille = static_cast<int>(1000.0f * scores[best] + 0.5f);
    MicroPrintf("%s: %d.%d %%", densepath_labels[best], permille / 10, permille % 10);
  }
  return 0;
#endif
}
