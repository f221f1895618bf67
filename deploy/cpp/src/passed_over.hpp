// What is left out where images are looked for, counted; as images/image_files.py does.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace densepath {

// Suffixes of images, whether this program reads them or not; with `values` also of DICOM files and
// arrays.
bool is_image_name(std::string_view name, bool values = false);

// Every such suffix, sorted, with blanks between them.
std::string image_suffixes(bool values = false);

// Whether a file or folder is hidden, or an operating system's or a tool's.
bool is_clutter(std::string_view name);

// The files of folders that are no images, by suffix, and links to folders.
class PassedOver {
 public:
  void add(std::string_view name);
  void add_link() { ++links_; }
  void update(const PassedOver& other);
  bool empty() const { return suffixes_.empty() && links_ == 0; }

  // "passed over: 3 files that are no images (2 .txt, 1 .xml)", with the cure of each kind.
  std::string to_string() const;

 private:
  std::map<std::string, size_t> suffixes_;
  size_t links_ = 0;
};

}  // namespace densepath
