// Stands in for TensorFlow Lite Micro's header of this name.
// Source: commit 90b983c, `tensorflow/lite/micro/micro_log.h`.
#pragma once

#include <cstdarg>
#include <cstdio>

inline void MicroPrintf(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  std::printf("\n");
  va_end(arguments);
}
