// PNG: chunks here, notes in png_notes.cpp, pixels in png_pixels.cpp. It is read as Pillow 13 reads
// it rather than as libpng does: checksums count before the pixels and not in them, a lost end does
// not matter, and what is refused is refused with the same words.
#include <zlib.h>

#include <string>
#include <vector>

#include "decode.hpp"
#include "exif.hpp"
#include "png_notes.hpp"
#include "png_pixels.hpp"

namespace densepath {
namespace {

constexpr size_t SIGNATURE_BYTES = 8;

[[noreturn]] void damaged_header(const std::string& reason) {
  throw ImageError("a damaged PNG file: " + reason);
}

struct Chunk {
  std::string name;
  Bytes data;
  size_t length = 0;  // As the file says; `data` is shorter where the file ends.
  size_t next = 0;    // Where the next chunk starts.
};

// The name as Python shows bytes: 'IDAT', '\x00\x01AB'.
std::string shown(std::string_view name) {
  static constexpr char DIGITS[] = "0123456789abcdef";
  std::string text = "'";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\') {
      text += "\\\\";
    } else if (byte >= 0x20 && byte < 0x7f && c != '\'') {
      text += c;
    } else {
      text += {'\\', 'x', DIGITS[byte >> 4], DIGITS[byte & 15]};
    }
  }
  return text += "'";
}

bool is_name(std::string_view name) {
  for (const char c : name) {
    const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!letter && !(c >= '0' && c <= '9') && c != '_') return false;
  }
  return name.size() == 4;
}

// The chunk at `at`; nothing where the file ends before its length and name.
std::optional<Chunk> chunk_at(Bytes file, size_t at) {
  const auto length = file.number(at, 4, true);
  if (!length || file.part(at + 4, 4).size() < 4) return std::nullopt;
  const auto count = static_cast<size_t>(*length);
  return Chunk{std::string(file.part(at + 4, 4).text()), file.part(at + 8, count), count,
               at + 12 + count};
}

void check_checksum(Bytes file, const Chunk& chunk) {
  const auto stated = file.number(chunk.next - 4, 4, true);
  const std::string where = " in b" + shown(chunk.name) + ")";
  if (!stated) damaged_header("broken PNG file (incomplete checksum" + where);
  uLong actual = crc32(0, reinterpret_cast<const Bytef*>(chunk.name.data()), 4);
  actual = crc32_z(actual, chunk.data.data(), chunk.data.size());
  if (actual != *stated) damaged_header("broken PNG file (bad header checksum" + where);
}

// What the chunks before and after the pixels say.
class Description {
 public:
  PngHeader header;
  PngNotes notes;
  bool in_trailer = false;

  // Takes in one chunk that is not pixels.
  void take(const Chunk& chunk) {
    if (chunk.data.size() < chunk.length) throw ImageError("damaged: Truncated File Read");
    if (chunk.name == "IHDR") take_header(chunk.data);
    if (chunk.name == "PLTE" && !in_trailer) take_palette(chunk.data);
    if (chunk.name == "tRNS") take_transparency(chunk.data);
    if (chunk.name == "fcTL" && !in_trailer) take_frame(chunk.data);
    notes.take(chunk.name, chunk.data);
  }

 private:
  // PNG specification, section 11.2.2.
  void take_header(Bytes data) {
    if (data.size() < 13) throw ImageError("damaged: Truncated IHDR chunk");
    if (in_trailer) return;
    header.width = *data.number(0, 4, true);
    header.height = *data.number(4, 4, true);
    header.set_kind(data.data()[8], data.data()[9]);
    if (data.data()[11] != 0) damaged_header("unknown filter category");
    header.interlaced = header.interlaced || data.data()[12] != 0;
  }

  void take_palette(Bytes data) {
    if (header.kind != PngKind::palette) return;
    header.palette.assign(data.begin(), data.end());
  }

  void take_transparency(Bytes data) {
    const bool is_gray = header.kind == PngKind::gray;
    const bool is_rgb = header.kind == PngKind::rgb;
    if (header.kind == PngKind::palette) {
      header.palette_alpha.assign(data.begin(), data.end());
      header.has_transparency = true;
    } else if (is_gray || is_rgb) {
      if (data.size() < (is_rgb ? 6U : 2U)) throw ImageError("damaged: Truncated tRNS chunk");
      for (size_t i = 0; i < 3; ++i) {
        header.transparent[i] = static_cast<uint16_t>(*data.number(is_rgb ? 2 * i : 0, 2, true));
      }
      header.has_transparency = true;
    }
  }

  // The first frame of an animation must be the whole picture: APNG specification, `fcTL`.
  void take_frame(Bytes data) const {
    if (data.size() < 26) throw ImageError("damaged: APNG contains truncated fcTL chunk");
    if (*data.number(4, 4, true) != header.width || *data.number(8, 4, true) != header.height) {
      damaged_header("APNG contains invalid frames");
    }
  }
};

// Reads chunks up to the first of pixels and returns where that stands.
size_t read_header(Bytes file, Description& description) {
  size_t at = SIGNATURE_BYTES;
  while (true) {
    const auto chunk = chunk_at(file, at);
    if (!chunk) damaged_header("it ends within its header");
    if (!is_name(chunk->name))
      damaged_header("broken PNG file (chunk b" + shown(chunk->name) + ")");
    if (chunk->name == "IDAT") return at;
    if (chunk->name == "IEND") throw ImageError("damaged: cannot load this image");
    description.take(*chunk);
    check_checksum(file, *chunk);
    at = chunk->next;
  }
}

// Chunks behind the pixels; that there are none is no error, nor are their checksums.
void read_trailer(Bytes file, size_t at, Description& description) {
  description.in_trailer = true;
  while (true) {
    const auto chunk = chunk_at(file, at);
    if (!chunk || !is_name(chunk->name) || chunk->name == "IEND" || chunk->name == "fcTL") return;
    description.take(*chunk);
    at = chunk->next;
  }
}

// Gives the data of consecutive IDAT chunks, and afterwards the place of the next other chunk.
class PixelChunks : public PngData {
 public:
  PixelChunks(Bytes file, size_t at) : file_(file), at_(at), left_(current().data) {}

  std::optional<Bytes> next() override {
    while (left_.empty()) {
      if (ends_within_block()) return std::nullopt;
      const auto chunk = chunk_at(file_, current().next);
      if (!chunk) throw ImageError("damaged: image file is truncated");
      if (!is_name(chunk->name)) {
        throw ImageError("damaged: broken PNG file (chunk b" + shown(chunk->name) + ")");
      }
      if (chunk->name != "IDAT") return std::nullopt;
      at_ = current().next;
      left_ = chunk->data;
    }
    const Bytes block = left_.part(0, BLOCK_BYTES);
    left_ = left_.part(block.size());
    return block;
  }

  // Where the chunks after the last one that was read start.
  size_t end() const { return current().next; }

 private:
  // Pillow's block size: pieces of the same sizes give zlib the same chance to see errors.
  static constexpr size_t BLOCK_BYTES = 65536;

  Chunk current() const { return *chunk_at(file_, at_); }

  // Whether the file ends in this chunk before its last block; Pillow tells these cases apart.
  bool ends_within_block() const {
    const size_t there = current().data.size();
    const size_t length = current().length;
    const bool in_last_block =
        there % BLOCK_BYTES != 0 && there / BLOCK_BYTES == (length - 1) / BLOCK_BYTES;
    return there < length && !in_last_block;
  }

  Bytes file_;
  size_t at_;
  Bytes left_;
};

// A file's samples as they stand in it, and what it says of them.
struct Samples {
  PngHeader header;
  std::vector<uint8_t> bytes;
  int orientation = 1;

  explicit Samples(Bytes file) {
    Description description;
    const size_t start = read_header(file, description);
    if (description.header.kind == PngKind::unknown || description.header.width == 0 ||
        description.header.height == 0) {
      damaged_header("not identified by this driver");
    }
    check_pixels(description.header.width, description.header.height);
    PixelChunks chunks(file, start);
    bytes = read_samples(description.header, chunks);
    read_trailer(file, chunks.end(), description);
    orientation = densepath::orientation(description.notes.found());
    header = description.header;
  }

  Image to_image() const {
    return Image{static_cast<size_t>(header.height), static_cast<size_t>(header.width), 3,
                 to_rgb(header, bytes)};
  }
};

// The values of gray of 16 bits, whose upper byte comes first.
Values deep_values(const Samples& samples) {
  Values made;
  made.height = static_cast<size_t>(samples.header.height);
  made.width = static_cast<size_t>(samples.header.width);
  made.most = 65535;
  made.what = "a PNG image of 16 bits";
  made.integers.resize(made.count());
  if (samples.header.has_transparency) made.white.resize(made.count());
  for (size_t i = 0; i < made.integers.size(); ++i) {
    made.integers[i] = samples.bytes[2 * i] << 8 | samples.bytes[2 * i + 1];
    if (samples.header.has_transparency) {
      made.white[i] = made.integers[i] == samples.header.transparent[0] ? 1 : 0;
    }
  }
  return made;
}

}  // namespace

Image decode_png(Bytes file, int& orientation) {
  const Samples samples(file);
  orientation = samples.orientation;
  return samples.to_image();
}

Values read_png(Bytes file, size_t channels) {
  const Samples samples(file);
  const bool deep = samples.header.depth == 16;
  if (deep && samples.header.kind != PngKind::gray) {
    throw ImageError(
        "a colour image of 16 bits, of which only the upper 8 would be read; save its channels as "
        "the pages of a TIFF or as an .npy array");
  }
  Values made;
  if (deep) {
    made = deep_values(samples);
  } else {
    Image image = samples.to_image();
    made = shown_values(channels == 1 ? to_gray(image) : std::move(image), "a PNG image of 8 bits");
  }
  made.orientation = samples.orientation;
  return made;
}

}  // namespace densepath
