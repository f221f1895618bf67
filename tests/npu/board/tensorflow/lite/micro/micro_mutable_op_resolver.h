// Stands in for TensorFlow Lite Micro's header of this name: the operators that our programs have.
// Source: commit 90b983c, `tensorflow/lite/micro/micro_mutable_op_resolver.h`, `c_api_types.h`.
#pragma once

#include "tensorflow/lite/micro/micro_log.h"

typedef enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;

namespace tflite {

class MicroOpResolver {};

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  TfLiteStatus AddEthosU() { return Add("ethos-u"); }
  TfLiteStatus AddAdd() { return Add("ADD"); }
  TfLiteStatus AddAveragePool2D() { return Add("AVERAGE_POOL_2D"); }
  TfLiteStatus AddConcatenation() { return Add("CONCATENATION"); }
  TfLiteStatus AddConv2D() { return Add("CONV_2D"); }
  TfLiteStatus AddDepthwiseConv2D() { return Add("DEPTHWISE_CONV_2D"); }
  TfLiteStatus AddDequantize() { return Add("DEQUANTIZE"); }
  TfLiteStatus AddFullyConnected() { return Add("FULLY_CONNECTED"); }
  TfLiteStatus AddMaxPool2D() { return Add("MAX_POOL_2D"); }
  TfLiteStatus AddMean() { return Add("MEAN"); }
  TfLiteStatus AddMul() { return Add("MUL"); }
  TfLiteStatus AddPad() { return Add("PAD"); }
  TfLiteStatus AddQuantize() { return Add("QUANTIZE"); }
  TfLiteStatus AddReshape() { return Add("RESHAPE"); }
  TfLiteStatus AddStridedSlice() { return Add("STRIDED_SLICE"); }

 private:
  TfLiteStatus Add(const char* name) {
    MicroPrintf("operator %s", name);
    return count_++ < tOpCount ? kTfLiteOk : kTfLiteError;
  }
  unsigned int count_ = 0;
};

}  // namespace tflite
