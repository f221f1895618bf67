#include "passed_over.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "text.hpp"

namespace densepath {
namespace {

using Names = std::set<std::string, std::less<>>;
using Counted = std::vector<std::pair<std::string, size_t>>;

constexpr size_t LONGEST_SUFFIX = 8;
constexpr size_t MOST_NAMED = 8;

const Names SUFFIXES = {".apng", ".avif", ".avifs", ".bmp", ".gif",  ".jfif",
                        ".jpe",  ".jpeg", ".jpg",   ".mpo", ".pbm",  ".pgm",
                        ".png",  ".pnm",  ".ppm",   ".tif", ".tiff", ".webp"};
const Names HEIF = {".heic", ".heics", ".heif", ".heifs", ".hif"};
const Names VALUES = {".dcm", ".dicom", ".npy"};
const Names DICOM = {".dcm", ".dicom"};
const Names RAW = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw",
                   ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f"};
const Names PICTURES = {".ai",   ".cdr", ".dds", ".emf", ".eps",  ".exr", ".fits", ".hdr",
                        ".icns", ".ico", ".j2k", ".jp2", ".jpx",  ".jxl", ".jxr",  ".nii",
                        ".pcx",  ".pdf", ".psd", ".svg", ".svgz", ".tga", ".wmf",  ".xcf"};
const Names CLUTTER = {"__macosx",
                       "icon\r",
                       "network trash folder",
                       "temporary items",
                       "$recycle.bin",
                       "recycler",
                       "system volume information",
                       "desktop.ini",
                       "ehthumbs.db",
                       "thumbs.db",
                       "@eadir",
                       "@tmp",
                       "#recycle",
                       "#snapshot",
                       "@recycle",
                       "@recently-snapshot",
                       "lost+found",
                       "found.000",
                       "__pycache__"};

struct Kind {
  const char *one, *several, *cure;
};

// In the order that they are told in.
constexpr std::array<Kind, 6> KINDS = {{
    {"HEIC photo", "HEIC photos", "save them as JPEG to have them read"},
    {"raw photo", "raw photos", "save them as JPEG or PNG to have them read"},
    {"DICOM file", "DICOM files",
     "networks that have the setting intensity read them (docs/data.md)"},
    {"picture of a kind that is not read", "pictures of kinds that are not read",
     "save them as PNG or JPEG to have them read"},
    {"file that is no image", "files that are no images", nullptr},
    {"file without a suffix", "files without a suffix",
     "files that are named, one by one or by a pattern, are read whatever their suffix"},
}};
constexpr size_t PICTURE = 3, OTHER = 4, BARE = 5;

size_t kind_of(const std::string& suffix) {
  if (suffix.empty()) return BARE;
  if (HEIF.count(suffix) > 0) return 0;
  if (RAW.count(suffix) > 0) return 1;
  if (DICOM.count(suffix) > 0) return 2;
  return PICTURES.count(suffix) > 0 ? PICTURE : OTHER;
}

// ".jpg" of "A.JPG "; empty where what stands behind the last dot is no suffix.
std::string suffix_of(std::string_view name) {
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!name.empty() && blank(name.back())) name.remove_suffix(1);
  const size_t dot = name.rfind('.');
  // Dots at the start of a name are part of it.
  if (dot == std::string_view::npos || name.find_first_not_of('.') > dot) return {};
  const std::string_view behind = name.substr(dot + 1);
  const auto plain = [](unsigned char c) { return c < 0x80 && std::isalnum(c) != 0; };
  const bool plausible = !behind.empty() && behind.size() <= LONGEST_SUFFIX &&
                         std::all_of(behind.begin(), behind.end(), plain);
  return plausible ? lower(name.substr(dot)) : std::string();
}

std::string count_of(size_t number, const char* one, const char* several) {
  return with_commas(number) + " " + (number == 1 ? one : several);
}

// "3 .txt, 1 .xml", the most frequent first.
std::string listed(Counted most) {
  std::stable_sort(most.begin(), most.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> parts;
  size_t rest = 0;
  for (size_t i = 0; i < most.size(); ++i) {
    if (i < MOST_NAMED) {
      parts.push_back(with_commas(most[i].second) + " " + most[i].first);
    } else {
      rest += most[i].second;
    }
  }
  if (rest > 0) parts.push_back(with_commas(rest) + " others");
  return join(parts, ", ");
}

}  // namespace

bool is_image_name(std::string_view name, bool values) {
  const std::string suffix = suffix_of(name);
  return SUFFIXES.count(suffix) > 0 || (values && VALUES.count(suffix) > 0);
}

std::string image_suffixes(bool values) {
  Names all = SUFFIXES;
  if (values) all.insert(VALUES.begin(), VALUES.end());
  return join(std::vector<std::string>(all.begin(), all.end()), " ");
}

bool is_clutter(std::string_view name) {
  return name.empty() || name.front() == '.' || CLUTTER.count(lower(name)) > 0;
}

void PassedOver::add(std::string_view name) { ++suffixes_[suffix_of(name)]; }

void PassedOver::update(const PassedOver& other) {
  for (const auto& [suffix, number] : other.suffixes_) suffixes_[suffix] += number;
  links_ += other.links_;
}

std::string PassedOver::to_string() const {
  std::array<Counted, KINDS.size()> kinds;
  for (const auto& entry : suffixes_) kinds[kind_of(entry.first)].push_back(entry);
  std::vector<std::string> notes;
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i].empty()) continue;
    size_t total = 0;
    for (const auto& entry : kinds[i]) total += entry.second;
    std::string note = count_of(total, KINDS[i].one, KINDS[i].several);
    if (i != BARE) note += " (" + listed(kinds[i]) + ")";
    if (KINDS[i].cure != nullptr) note += std::string(": ") + KINDS[i].cure;
    notes.push_back(std::move(note));
  }
  if (links_ > 0) {
    notes.push_back(count_of(links_, "link to a folder", "links to folders") + ", not followed");
  }
  return "passed over: " + join(notes, "; ");
}

}  // namespace densepath
