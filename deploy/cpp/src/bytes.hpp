// A view of bytes with reads that cannot leave it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace densepath {

// Bytes owned by somebody else; every read is checked against the end.
class Bytes {
 public:
  Bytes() = default;
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  explicit Bytes(const std::vector<uint8_t>& bytes) : Bytes(bytes.data(), bytes.size()) {}

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const uint8_t* begin() const { return data_; }
  const uint8_t* end() const { return data_ + size_; }

  // The part from `start` on, of `count` bytes or what is left of them.
  Bytes part(size_t start, size_t count = SIZE_MAX) const {
    start = std::min(start, size_);
    return {data_ + start, std::min(count, size_ - start)};
  }

  bool starts_with(std::string_view prefix) const {
    return size_ >= prefix.size() && std::memcmp(data_, prefix.data(), prefix.size()) == 0;
  }

  // The unsigned number of `width` bytes at `at`; nothing where it would pass the end.
  std::optional<uint64_t> number(size_t at, size_t width, bool big_endian) const {
    if (at > size_ || size_ - at < width) return std::nullopt;
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) {
      value = value << 8 | data_[at + (big_endian ? i : width - 1 - i)];
    }
    return value;
  }

  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace densepath
