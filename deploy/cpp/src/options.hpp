// The command line's words.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"

namespace densepath {

struct Options {
  std::string bundle;
  std::vector<std::string> paths;
  std::string list;  // A file of names, or `-`; empty for none.
  Settings settings;
  size_t top_k = 5;
  bool benchmark = false;
  size_t repeats = 20;
  bool help = false;
  bool version = false;
};

// The words after the program's name, understood.
//
// Throws UsageError: an unknown option, a value that cannot be, nothing to do.
Options parse_options(const std::vector<std::string>& words);

// What `--help` prints.
std::string help_text();

}  // namespace densepath
