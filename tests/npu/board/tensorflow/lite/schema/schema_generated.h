// Stands in for TensorFlow Lite Micro's header of this name.
// Source: commit 90b983c, `tensorflow/lite/schema/schema_generated.h`.
#pragma once

namespace tflite {

struct Model {};
inline const Model* GetModel(const void* bytes) { return static_cast<const Model*>(bytes); }

}  // namespace tflite
