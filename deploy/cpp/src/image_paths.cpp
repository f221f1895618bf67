#include "image_paths.hpp"

#include <algorithm>
#include <filesystem>
#include <set>

#include "file.hpp"
#include "text.hpp"

namespace densepath {
namespace {

namespace fs = std::filesystem;

constexpr char kStandardInput[] = "-";
constexpr char kUrlsRefused[] = "URLs are not downloaded by this program";

/// Suffixes of images, whether this program reads them or not: data/decode.py's.
const std::set<std::string>& suffixes() {
  static const std::set<std::string> known = {".apng", ".bmp", ".gif",  ".jfif", ".jpe", ".jpeg",
                                              ".jpg",  ".mpo", ".pbm",  ".pgm",  ".png", ".pnm",
                                              ".ppm",  ".tif", ".tiff", ".webp"};
  return known;
}

bool is_url(const std::string& name) {
  const std::string start = lower(name.substr(0, 8));
  return start.rfind("http://", 0) == 0 || start == "https://";
}

bool is_image_name(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot != std::string::npos && suffixes().count(lower(name.substr(dot))) > 0;
}

}  // namespace

ImagePaths::ImagePaths(std::vector<std::string> arguments, std::istream& lines)
    : arguments_(std::move(arguments)), lines_(lines) {
  for (const std::string& argument : arguments_) {
    if (is_url(argument)) throw UsageError(argument + ": " + kUrlsRefused + ".");
  }
}

std::optional<Source> ImagePaths::next() {
  while (true) {
    if (!levels_.empty()) {
      if (auto source = step()) {
        found_in_top_ = true;
        return source;
      }
      if (levels_.empty() && !found_in_top_) {
        const std::vector<std::string> known(suffixes().begin(), suffixes().end());
        throw Error(top_folder_ + ": no images in this folder. Images have one of the suffixes " +
                    join(known, " "));
      }
      continue;
    }
    const auto name = next_name();
    if (!name) return std::nullopt;
    if (auto source = start(*name)) return source;
  }
}

/// The next argument or line.
std::optional<std::string> ImagePaths::next_name() {
  while (at_ < arguments_.size()) {
    if (arguments_[at_] != kStandardInput) return arguments_[at_++];
    std::string line;
    while (std::getline(lines_, line)) {
      while (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) return line;
    }
    ++at_;
  }
  return std::nullopt;
}

std::optional<Source> ImagePaths::start(const std::string& name) {
  if (is_url(name)) return Source{name, kUrlsRefused};
  std::error_code ignored;
  if (!fs::is_directory(name, ignored)) return Source{name};
  top_folder_ = name;
  found_in_top_ = false;
  auto unreadable = enter(name);
  found_in_top_ = unreadable.has_value();
  return unreadable;
}

/// The next image of the innermost folder; nothing when a folder was left or entered.
std::optional<Source> ImagePaths::step() {
  Level& level = levels_.back();
  if (level.at == level.inside.size()) {
    levels_.pop_back();
    return std::nullopt;
  }
  const auto& [name, is_folder] = level.inside[level.at++];
  const std::string path = level.folder + (level.folder.back() == '/' ? "" : "/") + name;
  if (is_folder) return enter(path);
  return is_image_name(name) ? std::optional<Source>(Source{path}) : std::nullopt;
}

/// Lists the folder without what is hidden; one that cannot be listed is an image with an error.
std::optional<Source> ImagePaths::enter(const std::string& folder) {
  Level level{folder, {}};
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name[0] == '.') continue;
    const bool is_folder = !entry->is_symlink() && entry->is_directory();
    level.inside.emplace_back(name, is_folder);
  }
  if (error) return Source{folder, error.message()};
  std::sort(level.inside.begin(), level.inside.end());
  levels_.push_back(std::move(level));
  return std::nullopt;
}

}  // namespace densepath
