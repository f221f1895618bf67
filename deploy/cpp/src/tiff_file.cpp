#include "tiff_file.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace densepath {
namespace {

constexpr tmsize_t MOST_MEMORY = tmsize_t{1} << 30;

tmsize_t read_memory(thandle_t handle, void* to, tmsize_t count) {
  auto* memory = static_cast<TiffMemory*>(handle);
  const Bytes part = memory->file.part(static_cast<size_t>(memory->at), static_cast<size_t>(count));
  std::memcpy(to, part.data(), part.size());
  memory->at += part.size();
  return static_cast<tmsize_t>(part.size());
}

tmsize_t write_memory(thandle_t, void*, tmsize_t) { return 0; }

toff_t seek_memory(thandle_t handle, toff_t offset, int whence) {
  auto* memory = static_cast<TiffMemory*>(handle);
  const uint64_t base = whence == SEEK_CUR   ? memory->at
                        : whence == SEEK_END ? memory->file.size()
                                             : 0;
  memory->at = base + offset;
  return memory->at;
}

int close_memory(thandle_t) { return 0; }

toff_t size_of_memory(thandle_t handle) { return static_cast<TiffMemory*>(handle)->file.size(); }

#if TIFFLIB_VERSION >= 20221213
int say_nothing(TIFF*, void*, const char*, const char*, va_list) { return 1; }
#endif

}  // namespace

TiffFile open_tiff(TiffMemory& memory) {
#if TIFFLIB_VERSION >= 20221213
  const std::unique_ptr<TIFFOpenOptions, void (*)(TIFFOpenOptions*)> options(TIFFOpenOptionsAlloc(),
                                                                             TIFFOpenOptionsFree);
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), say_nothing, nullptr);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), say_nothing, nullptr);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), MOST_MEMORY);
  return TiffFile(TIFFClientOpenExt("image", "rm", &memory, read_memory, write_memory, seek_memory,
                                    close_memory, size_of_memory, nullptr, nullptr, options.get()));
#else
  TIFFSetErrorHandler(nullptr);
  TIFFSetWarningHandler(nullptr);
  return TiffFile(TIFFClientOpen("image", "rm", &memory, read_memory, write_memory, seek_memory,
                                 close_memory, size_of_memory, nullptr, nullptr));
#endif
}

}  // namespace densepath
