// Stands in for TensorFlow Lite Micro's header of this name: tensors without a network. `Invoke`
// asks `PlayNpu`, of playing.cc, for the output.
// Source: commit 90b983c, `tensorflow/lite/micro/micro_interpreter.h` and `tensorflow/lite/c/common.h`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "program.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

typedef enum { kTfLiteFloat32 = 1, kTfLiteUInt8 = 3, kTfLiteInt8 = 9 } TfLiteType;

typedef union TfLitePtrUnion {
  float* f;
  char* raw;
  std::uint8_t* uint8;
  std::int8_t* int8;
} TfLitePtrUnion;

typedef struct TfLiteTensor {
  TfLitePtrUnion data;
  std::size_t bytes;
  TfLiteType type;
} TfLiteTensor;

void PlayNpu(const std::uint8_t* input, char* output);

namespace tflite {

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver&, std::uint8_t* tensor_arena,
                   std::size_t tensor_arena_size)
      : file_(reinterpret_cast<const char*>(model)), size_(tensor_arena_size) {
    input_ = {{}, DENSEPATH_INPUT_BYTES, kTfLiteUInt8};
    input_.data.uint8 = tensor_arena;
    output_ = {{}, DENSEPATH_OUTPUT_BYTES, DENSEPATH_OUTPUT_IS_FLOAT ? kTfLiteFloat32 : kTfLiteInt8};
    output_.data.raw = reinterpret_cast<char*>(tensor_arena);  // as Vela plans it: over the input
  }
  TfLiteStatus AllocateTensors() {  // a TFLite file, whose name stands at byte 4
    const bool is_model = file_[4] == 'T' && file_[5] == 'F' && file_[6] == 'L';
    const bool fits = size_ >= DENSEPATH_INPUT_BYTES && size_ >= DENSEPATH_OUTPUT_BYTES;
    return is_model && fits ? kTfLiteOk : kTfLiteError;
  }
  TfLiteStatus Invoke() {
    PlayNpu(input_.data.uint8, output_.data.raw);
    return kTfLiteOk;
  }
  TfLiteTensor* input(std::size_t) { return &input_; }
  TfLiteTensor* output(std::size_t) { return &output_; }
  std::size_t arena_used_bytes() const { return size_; }

 private:
  const char* file_;
  std::size_t size_;
  TfLiteTensor input_;
  TfLiteTensor output_;
};

}  // namespace tflite
