// SHA-256 of bytes (FIPS 180-4), so that no cryptographic library is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace densepath {

// The SHA-256 of `size` bytes at `data`, as 64 lower-case hexadecimal digits.
std::string sha256(const uint8_t* data, size_t size);

}  // namespace densepath
