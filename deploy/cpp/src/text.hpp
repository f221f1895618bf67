// Text as Python writes it: file names that need not be UTF-8, JSON strings, numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace densepath {

// Code points of `bytes` read as UTF-8; a byte that is not becomes U+DC00 + byte, as Python's
// `surrogateescape` does.
std::vector<uint32_t> code_points(std::string_view bytes);

// Whether Python's `str.isprintable` would be true (unassigned code points count as printable).
bool is_printable(std::string_view bytes);

// The text with stray bytes as `\xe9`, as names.py has it: valid UTF-8.
std::string readable(std::string_view bytes);

// The bytes in base64.
std::string base64(std::string_view bytes);

// The text with control characters and stray bytes escaped: one line, valid UTF-8.
std::string printable(std::string_view bytes);

// The text in quotes, as `json.dumps` writes it, with all of Unicode escaped or as it is.
std::string json_string(std::string_view bytes, bool ascii_only);

// A probability rounded to six digits, as Python prints `round(score, 6)`: 0.25, 1e-06, 1.0.
std::string json_score(double score);

// 12345 → "12,345".
std::string with_commas(uint64_t value);

// "a, b, c".
std::string join(const std::vector<std::string>& parts, std::string_view between);

// ASCII letters in lower case.
std::string lower(std::string_view text);

}  // namespace densepath
