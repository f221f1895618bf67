// The lines of a file or a stream as they come.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace densepath {

// Lines whose bytes are taken as they are; the last one may lack its end.
class Lines {
 public:
  // Standard input.
  Lines() = default;

  // Throws Error: the file cannot be opened.
  explicit Lines(const std::string& path);

  ~Lines();
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // The next line without its `\n`; none after the last, or when a signal comes while waiting for
  // it. Throws Error: it cannot be read.
  std::optional<std::string> next();

  // Whether `next` would return at once; so long it waits for that. (On Windows it cannot be told:
  // always.)
  bool waiting(std::chrono::milliseconds time);

 private:
  bool has_line() const { return ended_ || buffer_.find('\n', at_) != std::string::npos; }
  void read_more();

  std::string name_ = "standard input";
  int file_ = 0;
  bool ended_ = false;
  std::string buffer_;
  size_t at_ = 0;  // Of the buffer, where the next line starts.
};

}  // namespace densepath
