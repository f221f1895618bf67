#include "image_paths.hpp"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "file.hpp"
#include "passed_over.hpp"
#include "text.hpp"

namespace densepath {
namespace {

namespace fs = std::filesystem;

constexpr char STANDARD_INPUT[] = "-";
constexpr char URLS_REFUSED[] = "URLs are not downloaded by this program";

bool is_url(const std::string& name) {
  const std::string start = lower(name.substr(0, 8));
  return start.rfind("http://", 0) == 0 || start == "https://";
}

}  // namespace

ImagePaths::ImagePaths(std::vector<std::string> arguments, Lines& lines)
    : arguments_(std::move(arguments)), lines_(lines) {
  for (const std::string& argument : arguments_) {
    if (is_url(argument)) throw UsageError(argument + ": " + URLS_REFUSED + ".");
  }
}

std::optional<Source> ImagePaths::next() {
  if (ahead_) return std::exchange(ahead_, std::nullopt);
  while (!is_over()) {
    if (auto source = advance()) return source;
  }
  return std::nullopt;
}

bool ImagePaths::waiting(std::chrono::milliseconds time) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + time;
  while (!ahead_ && !is_over()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    if (reads_lines() && !lines_.waiting(left)) return false;
    ahead_ = advance();
  }
  return true;
}

// Whether the next image, or the next folder of images, is named by a line.
bool ImagePaths::reads_lines() const {
  return levels_.empty() && at_ < arguments_.size() && arguments_[at_] == STANDARD_INPUT;
}

// One step onwards: an entry of the innermost folder, an argument or a line; often no image.
std::optional<Source> ImagePaths::advance() {
  if (!levels_.empty()) {
    auto source = step();
    if (source) found_in_top_ = true;
    if (!source && levels_.empty()) leave_top();
    return source;
  }
  if (!reads_lines()) return start(arguments_[at_++]);
  auto line = lines_.next();
  if (!line) ++at_;
  while (line && !line->empty() && line->back() == '\r') line->pop_back();
  return line && !line->empty() ? start(*line) : std::nullopt;
}

std::optional<Source> ImagePaths::start(const std::string& name) {
  if (is_url(name)) return Source{name, URLS_REFUSED};
  std::error_code ignored;
  if (!fs::is_directory(name, ignored)) return Source{name};
  top_folder_ = name;
  found_in_top_ = false;
  passed_over_in_top_ = {};
  auto unreadable = enter(name);
  found_in_top_ = unreadable.has_value();
  return unreadable;
}

// Counts what the folder that was named had besides images. Throws Error: it had none.
void ImagePaths::leave_top() {
  passed_over_.update(passed_over_in_top_);
  if (found_in_top_) return;
  const std::string said =
      passed_over_in_top_.empty() ? "" : "; " + passed_over_in_top_.to_string();
  throw Error(top_folder_ + ": no images in this folder" + said +
              ". Images have one of the suffixes " + image_suffixes(values_) + ".");
}

// The next image of the innermost folder; nothing when a folder was left or entered.
std::optional<Source> ImagePaths::step() {
  Level& level = levels_.back();
  if (level.at == level.inside.size()) {
    levels_.pop_back();
    return std::nullopt;
  }
  const auto& [name, kind] = level.inside[level.at++];
  const std::string path = level.folder + (level.folder.back() == '/' ? "" : "/") + name;
  if (kind == Entry::folder) return enter(path);
  if (kind == Entry::linked_folder) {
    passed_over_in_top_.add_link();
  } else if (is_image_name(name, values_)) {
    return Source{path};
  } else {
    passed_over_in_top_.add(name);
  }
  return std::nullopt;
}

// Lists the folder without what is hidden; one that cannot be listed is an image with an error.
std::optional<Source> ImagePaths::enter(const std::string& folder) {
  Level level{folder, {}};
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (is_clutter(name)) continue;
    std::error_code ignored;
    const bool is_folder = entry->is_directory(ignored);
    const Entry folder_kind = entry->is_symlink(ignored) ? Entry::linked_folder : Entry::folder;
    level.inside.emplace_back(name, is_folder ? folder_kind : Entry::file);
  }
  if (error) return Source{folder, error.message()};
  std::sort(level.inside.begin(), level.inside.end());
  levels_.push_back(std::move(level));
  return std::nullopt;
}

}  // namespace densepath
