// A TIFF → its values, by libtiff: gray of any depth, its pages as channels, RGB of 8 bits.
//
// As `densepath.images.pages`; what Pillow turns into RGB beyond these (palettes, CMYK,
// transparency) this program leaves to Python, and says so.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "decode.hpp"
#include "tiff_file.hpp"

namespace densepath {
namespace {

constexpr size_t MOST_DIRECTORIES = 64;
constexpr uint64_t USUAL_CHANNELS = 3;
constexpr size_t MOST_TILE = size_t{1} << 28;
constexpr uint32_t DNG_VERSION = 50706;

// What a directory says of its page.
struct Page {
  uint32_t width = 0, height = 0;
  uint16_t bits = 1, samples = 1, format = SAMPLEFORMAT_UINT, photometric = 0, planar = 1;
  uint16_t orientation = 1;
  bool reduced = false;

  explicit Page(TIFF* tiff) {
    uint32_t subfile = 0;
    TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &format);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &planar);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &orientation);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SUBFILETYPE, &subfile);
    if (TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &photometric) == 0) photometric = 0xffff;
    reduced = (subfile & FILETYPE_REDUCEDIMAGE) != 0;
  }

  bool is_white_zero() const { return photometric == PHOTOMETRIC_MINISWHITE; }
  bool is_gray() const {
    return samples == 1 && (is_white_zero() || photometric == PHOTOMETRIC_MINISBLACK);
  }
  bool is_rgb() const { return samples == 3 && photometric == PHOTOMETRIC_RGB; }
  size_t value_bytes() const { return bits / 8; }

  // Throws ImageError: such numbers are not read.
  void check() const {
    check_pixels(width, height);
    if (width == 0 || height == 0) throw ImageError("a damaged TIFF file: it has no pixels");
    if (is_rgb() && bits == 16) {
      throw ImageError(
          "a colour image of 16 bits, of which only the upper 8 would be read; save its channels "
          "as the pages of a TIFF or as an .npy array");
    }
    const bool whole = format == SAMPLEFORMAT_UINT;
    const bool bytes = bits == 8 && whole && (is_gray() || is_rgb());
    const bool is_signed = format == SAMPLEFORMAT_INT && !is_white_zero();
    const bool deep = is_gray() && ((bits == 16 && (whole || is_signed)) ||
                                    (bits == 32 && (is_signed || (whole && !is_white_zero()))) ||
                                    (bits == 32 && format == SAMPLEFORMAT_IEEEFP));
    if (!bytes && !deep) {
      throw ImageError(
          "a TIFF image of a kind that this program does not read; save it as a PNG, or as a TIFF "
          "of 8, 16 or 32 bits in gray");
    }
  }
};

[[noreturn]] void damaged() { throw ImageError("damaged: the pixels of the TIFF"); }

// Throws ImageError: the file does not say where the strip or tile is, and libtiff would guess.
void check_there(TIFF* tiff, uint32_t number) {
  const bool known = number < TIFFNumberOfStrips(tiff) || TIFFIsTiled(tiff) != 0;
  if (!known || TIFFGetStrileOffset(tiff, number) == 0) damaged();
}

// Copies `rows` rows of a block, whose lines are `line` bytes, to their place in the page.
struct Block {
  const uint8_t* from;
  size_t line, rows, top, left_bytes, bytes;
};

void put(std::vector<uint8_t>& plane, size_t plane_line, const Block& block) {
  for (size_t y = 0; y < block.rows; ++y) {
    std::copy_n(block.from + y * block.line, block.bytes,
                plane.data() + (block.top + y) * plane_line + block.left_bytes);
  }
}

// The bytes of one plane [height, width, samples in it], in the machine's order.
std::vector<uint8_t> read_plane(TIFF* tiff, const Page& page, uint16_t plane, size_t samples) {
  const size_t pixel = samples * page.value_bytes(), line = page.width * pixel;
  std::vector<uint8_t> made(line * page.height), block;
  if (TIFFIsTiled(tiff) != 0) {
    uint32_t wide = 0, high = 0;
    TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &wide);
    TIFFGetField(tiff, TIFFTAG_TILELENGTH, &high);
    const tmsize_t size = TIFFTileSize(tiff);
    if (wide == 0 || high == 0 || size <= 0 || static_cast<size_t>(size) > MOST_TILE ||
        static_cast<uint64_t>(wide) * high * pixel > static_cast<uint64_t>(size)) {
      damaged();
    }
    block.resize(static_cast<size_t>(size));
    for (uint32_t y = 0; y < page.height; y += high) {
      for (uint32_t x = 0; x < page.width; x += wide) {
        const uint32_t number = TIFFComputeTile(tiff, x, y, 0, plane);
        check_there(tiff, number);
        if (TIFFReadEncodedTile(tiff, number, block.data(), size) != size) damaged();
        const size_t columns = std::min(wide, page.width - x),
                     rows = std::min(high, page.height - y);
        put(made, line, {block.data(), wide * pixel, rows, y, x * pixel, columns * pixel});
        if (page.width - x <= wide) break;
      }
      if (page.height - y <= high) break;
    }
    return made;
  }
  uint32_t high = 0;
  TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &high);
  high = std::min(high, page.height);
  const tmsize_t size = TIFFStripSize(tiff);
  if (high == 0 || size <= 0 || static_cast<size_t>(size) != line * high) damaged();
  for (uint32_t y = 0; y < page.height; y += high) {
    const size_t rows = std::min(high, page.height - y);
    const uint32_t number = TIFFComputeStrip(tiff, y, plane);
    check_there(tiff, number);
    const auto wanted = static_cast<tmsize_t>(rows * line);
    if (TIFFReadEncodedStrip(tiff, number, made.data() + y * line, wanted) != wanted) damaged();
    if (page.height - y <= high) break;
  }
  return made;
}

template <typename Number>
Number number_at(const std::vector<uint8_t>& bytes, size_t i) {
  Number value;
  std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
  return value;
}

// Reads a gray page to the channel `channel` of `made`, which has as many as there are pages.
void read_gray(TIFF* tiff, const Page& page, size_t channel, Values& made) {
  const std::vector<uint8_t> bytes = read_plane(tiff, page, 0, 1);
  const bool is_signed = page.format == SAMPLEFORMAT_INT;
  const size_t count = made.height * made.width;
  for (size_t i = 0; i < count; ++i) {
    const size_t to = i * made.channels + channel;
    if (page.format == SAMPLEFORMAT_IEEEFP) {
      made.floats[to] = number_at<float>(bytes, i);
    } else if (page.bits == 8) {
      made.integers[to] = page.is_white_zero() ? 255 - bytes[i] : bytes[i];
    } else if (page.bits == 16) {
      made.integers[to] = is_signed ? number_at<int16_t>(bytes, i) : number_at<uint16_t>(bytes, i);
    } else {
      made.integers[to] = is_signed
                              ? number_at<int32_t>(bytes, i)
                              : static_cast<int32_t>(number_at<uint32_t>(bytes, i) ^ 0x80000000U);
    }
  }
}

// The room for pages like `page`, and what their numbers mean.
Values room_for(const Page& page, size_t pages) {
  Values made;
  made.height = page.height;
  made.width = page.width;
  made.channels = pages;
  const bool is_signed = page.format == SAMPLEFORMAT_INT;
  if (page.format == SAMPLEFORMAT_IEEEFP) {
    made.floats.resize(made.count());
    made.what = "a TIFF image of floats";
  } else {
    made.integers.resize(made.count());
    made.what = "a TIFF image of " + std::to_string(page.bits) + " bits";
    const int64_t half = int64_t{1} << (page.bits - 1);
    made.least = is_signed ? -half : 0;
    made.most = is_signed ? half - 1 : 2 * half - 1;
    if (page.bits == 32 && !is_signed) made.bias = half;
  }
  made.shown = page.bits == 8;
  made.inverted = page.is_white_zero() && !made.shown;
  made.orientation = page.orientation >= 1 && page.orientation <= 8 ? page.orientation : 1;
  return made;
}

Image read_rgb(TIFF* tiff, const Page& page) {
  Image made{page.height, page.width, 3, {}};
  if (page.planar == PLANARCONFIG_CONTIG) {
    made.pixels = read_plane(tiff, page, 0, 3);
    return made;
  }
  made.pixels.resize(size_t{page.height} * page.width * 3);
  for (uint16_t plane = 0; plane < 3; ++plane) {
    const std::vector<uint8_t> bytes = read_plane(tiff, page, plane, 1);
    for (size_t i = 0; i < bytes.size(); ++i) made.pixels[i * 3 + plane] = bytes[i];
  }
  return made;
}

// The numbers of the whole pages, at most one more than the network has channels.
std::vector<tdir_t> find_pages(TIFF* tiff, size_t channels) {
  std::vector<tdir_t> found;
  for (size_t at = 0; at < MOST_DIRECTORIES && found.size() <= channels; ++at) {
    if (!Page(tiff).reduced) found.push_back(static_cast<tdir_t>(at));
    if (TIFFLastDirectory(tiff) != 0) break;
    if (TIFFReadDirectory(tiff) == 0) damaged();
  }
  return found.empty() ? std::vector<tdir_t>{0} : found;
}

Values read_pages(TIFF* tiff, size_t channels) {
  const std::vector<tdir_t> pages = find_pages(tiff, channels);
  if (pages.size() > 1 && pages.size() != channels) {
    throw ImageError(
        "a TIFF of " + (pages.size() > channels ? "more" : std::to_string(pages.size())) +
        " pages, and the network takes " + std::to_string(channels) +
        (channels == 1 ? " channel" : " channels") + "; save those that are meant as a file");
  }
  if (TIFFSetDirectory(tiff, pages[0]) == 0) damaged();
  const Page first(tiff);
  if (uint64_t{first.width} * first.height * pages.size() > MAX_PIXELS * USUAL_CHANNELS) {
    throw ImageError(std::to_string(pages.size()) + " pages of " + std::to_string(first.width) +
                     " × " + std::to_string(first.height) + " are more than is allowed");
  }
  Values made = room_for(first, pages.size());
  for (size_t channel = 0; channel < pages.size(); ++channel) {
    if (TIFFSetDirectory(tiff, pages[channel]) == 0) damaged();
    const Page page(tiff);
    if (page.width != first.width || page.height != first.height) {
      throw ImageError("a TIFF whose pages are of different sizes");
    }
    page.check();
    if (page.bits != first.bits || page.format != first.format || !page.is_gray() ||
        page.orientation != first.orientation) {
      throw ImageError("a TIFF whose pages are of different kinds");
    }
    if (!made.shown && page.is_white_zero() != first.is_white_zero()) {
      throw ImageError("a TIFF in some of whose pages 0 is white");
    }
    read_gray(tiff, page, channel, made);
  }
  made.check_finite();
  return made;
}

}  // namespace

Values read_tiff(Bytes file, size_t channels) {
  TiffMemory memory{file};
  const TiffFile tiff = open_tiff(memory);
  if (!tiff) throw ImageError("a damaged TIFF file");
  const Page first(tiff.get());
  if (first.bits == 32 && first.format == SAMPLEFORMAT_UINT && TIFFIsBigEndian(tiff.get()) != 0) {
    // Pillow reads none of these, and both programs are to give the same answers.
    throw ImageError(
        "a TIFF of 1 channel of 32-bit unsigned integers, not an 8-bit image; save it as an 8-bit "
        "PNG");
  }
  void* ignored = nullptr;
  uint16_t count = 0;
  if (first.reduced || TIFFGetField(tiff.get(), DNG_VERSION, &count, &ignored) != 0) {
    throw ImageError("a raw photo, of which only a small preview could be read; save it as JPEG");
  }
  first.check();
  if (first.is_gray()) return read_pages(tiff.get(), channels);
  Image image = read_rgb(tiff.get(), first);
  Values made =
      shown_values(channels == 1 ? to_gray(image) : std::move(image), "a TIFF image of 8 bits");
  made.orientation = first.orientation >= 1 && first.orientation <= 8 ? first.orientation : 1;
  return made;
}

}  // namespace densepath
