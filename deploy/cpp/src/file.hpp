// Files, opened once, whose bytes are read into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

namespace densepath {

// The system's reason with a small first letter: "no such file or directory".
std::string system_reason(const std::error_code& error);

// The reason in `errno`.
std::string system_reason();

// A regular file that is not empty. Folders, pipes and empty files are refused before opening.
class File {
 public:
  // Throws ImageError with the reason, which has no name in it.
  explicit File(const std::string& path);

  size_t size() const { return size_; }

  // The first `count` bytes, or all of them if there are fewer. Throws ImageError.
  std::vector<uint8_t> read(size_t count) const;

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
  size_t size_ = 0;
};

}  // namespace densepath
