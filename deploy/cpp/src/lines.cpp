#include "lines.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#ifdef _WIN32
#include <io.h>
#else
#include <poll.h>
#include <unistd.h>
#endif

#include "densepath/predictor.hpp"
#include "file.hpp"

namespace densepath {
namespace {

constexpr size_t MOST_BYTES = 1 << 16;  // Of one reading.

#ifdef _WIN32
int open_file(const char* path) { return _open(path, _O_RDONLY | _O_BINARY); }
void close_file(int file) { _close(file); }
int read_file(int file, char* to) { return _read(file, to, static_cast<unsigned>(MOST_BYTES)); }
bool has_bytes(int, std::chrono::milliseconds) { return true; }
#else
int open_file(const char* path) { return open(path, O_RDONLY | O_CLOEXEC); }
void close_file(int file) { close(file); }
ssize_t read_file(int file, char* to) { return read(file, to, MOST_BYTES); }

// Whether reading would not wait, or has ended; a signal ends the waiting.
bool has_bytes(int file, std::chrono::milliseconds time) {
  pollfd asked{file, POLLIN, 0};
  return poll(&asked, 1, static_cast<int>(time.count())) > 0;
}
#endif

}  // namespace

Lines::Lines(const std::string& path) : name_(path), file_(open_file(path.c_str())) {
  if (file_ < 0) throw Error(path + ": " + system_reason());
}

Lines::~Lines() {
  if (file_ > 0) close_file(file_);
}

std::optional<std::string> Lines::next() {
  while (!has_line()) read_more();
  const size_t end = buffer_.find('\n', at_);
  if (end == std::string::npos) {
    if (at_ == buffer_.size()) return std::nullopt;
    std::string last = buffer_.substr(at_);
    at_ = buffer_.size();
    return last;
  }
  std::string line = buffer_.substr(at_, end - at_);
  at_ = end + 1;
  return line;
}

bool Lines::waiting(std::chrono::milliseconds time) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + time;
  while (!has_line()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    if (!has_bytes(file_, std::max(left, std::chrono::milliseconds(0)))) return false;
    read_more();
  }
  return true;
}

// Adds what is there to the buffer, or notes the end.
void Lines::read_more() {
  buffer_.erase(0, at_);
  at_ = 0;
  const size_t before = buffer_.size();
  buffer_.resize(before + MOST_BYTES);
  const auto got = read_file(file_, buffer_.data() + before);
  buffer_.resize(before + static_cast<size_t>(got > 0 ? got : 0));
  if (got < 0 && errno != EINTR) throw Error(name_ + ": " + system_reason());
  ended_ = got <= 0;
}

}  // namespace densepath
