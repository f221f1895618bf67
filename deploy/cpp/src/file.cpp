#include "file.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "densepath/predictor.hpp"

namespace densepath {

std::string system_reason(const std::error_code& error) {
  std::string reason = error.message();
  if (!reason.empty() && reason[0] >= 'A' && reason[0] <= 'Z') {
    reason[0] = static_cast<char>(reason[0] - 'A' + 'a');
  }
  return reason;
}

std::string system_reason() { return system_reason({errno, std::generic_category()}); }

File::File(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  // Before it is opened: opening a pipe would block for ever.
  const fs::file_status found = fs::status(path, error);
  if (error) throw ImageError(system_reason(error));
  if (fs::is_directory(found)) throw ImageError("a folder, not a file");
  if (!fs::is_regular_file(found)) throw ImageError("not a regular file");
  size_ = static_cast<size_t>(fs::file_size(path, error));
  if (error) throw ImageError(system_reason(error));
  if (size_ == 0) throw ImageError("the file is empty");
  file_.reset(std::fopen(path.c_str(), "rb"));
  if (!file_) throw ImageError(system_reason());
}

std::vector<uint8_t> File::read(size_t count) const {
  std::vector<uint8_t> bytes(std::min(count, size_));
  std::rewind(file_.get());
  const size_t got = std::fread(bytes.data(), 1, bytes.size(), file_.get());
  if (got < bytes.size() && std::ferror(file_.get()) != 0) throw ImageError(system_reason());
  bytes.resize(got);  // It may have become shorter since it was opened.
  return bytes;
}

}  // namespace densepath
