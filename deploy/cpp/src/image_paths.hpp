// What a user names → one image after another, in a fixed order, as images/find.py does.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "densepath/predictor.hpp"
#include "lines.hpp"
#include "passed_over.hpp"

namespace densepath {

// Files, folders (all images below them, sorted by name, folder by folder) and `-` for the names
// in a stream, a line each. Only the names of the folders being read are held.
class ImagePaths {
 public:
  // Throws UsageError: an argument is a URL.
  ImagePaths(std::vector<std::string> arguments, Lines& lines);

  // DICOM files and arrays are images from now on, for a network that reads values.
  void read_values() { values_ = true; }

  // The next image. Throws Error: a folder without images.
  std::optional<Source> next();

  // Whether `next` would return at once; so long it waits for lines. Throws as `next`.
  bool waiting(std::chrono::milliseconds time);

  // What the folders had besides images.
  const PassedOver& passed_over() const { return passed_over_; }

 private:
  enum class Entry { file, folder, linked_folder };

  struct Level {
    std::string folder;
    std::vector<std::pair<std::string, Entry>> inside;
    size_t at = 0;
  };

  bool is_over() const { return levels_.empty() && at_ == arguments_.size(); }
  bool reads_lines() const;
  std::optional<Source> advance();
  std::optional<Source> start(const std::string& name);
  std::optional<Source> step();
  std::optional<Source> enter(const std::string& folder);
  void leave_top();

  std::vector<std::string> arguments_;
  size_t at_ = 0;
  Lines& lines_;
  std::optional<Source> ahead_;  // Found by `waiting`.
  std::vector<Level> levels_;
  std::string top_folder_;
  bool found_in_top_ = false, values_ = false;
  PassedOver passed_over_in_top_, passed_over_;
};

}  // namespace densepath
