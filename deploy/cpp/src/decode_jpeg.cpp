// JPEG through libjpeg-turbo, with the settings that Pillow uses: accurate integer DCT, smooth
// upsampling, and a source that is refused where it ends too early.
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs stdio.h before it.
#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "decode.hpp"
#include "exif.hpp"

namespace densepath {
namespace {

constexpr std::string_view EXIF_START{"Exif\0\0", 6};
constexpr std::string_view XMP_START{"http://ns.adobe.com/xap/1.0/\0", 29};
// A progressive file may ask for the whole picture to be gone through any number of times.
constexpr int MOST_SCANS = 500;

// What stands before the first scan.
struct Header {
  size_t width = 0;
  size_t height = 0;
  int components = 0;
  Notes notes;
};

[[noreturn]] void damaged_header(const std::string& reason) {
  throw ImageError("a damaged JPEG file: " + reason);
}

bool is_frame(unsigned marker) {
  const bool is_table = marker == 0xc4 || marker == 0xc8 || marker == 0xcc;
  return (marker >= 0xc0 && marker <= 0xcf && !is_table) || marker == 0xde;
}

// Markers with nothing behind them: restarts, start and end, and those reserved for extensions.
bool stands_alone(unsigned marker) {
  return marker == 0xc8 || (marker >= 0xd0 && marker <= 0xd9) || (marker >= 0xf0 && marker <= 0xfd);
}

// Takes in the size and the number of components: ITU-T T.81, section B.2.2.
void read_frame(Bytes segment, Header& header) {
  if (segment.size() < 6) damaged_header("its frame header is cut off");
  const unsigned bits = segment.data()[0];
  if (bits != 8) damaged_header("cannot handle " + std::to_string(bits) + "-bit layers");
  header.height = static_cast<size_t>(*segment.number(1, 2, true));
  header.width = static_cast<size_t>(*segment.number(3, 2, true));
  header.components = segment.data()[5];
  if (header.components != 1 && header.components != 3 && header.components != 4) {
    damaged_header("cannot handle " + std::to_string(header.components) + "-layer images");
  }
  if (segment.size() % 3 != 0) damaged_header("its frame header is cut off");
}

// Keeps the notes that may say how the picture was held.
void read_notes(Bytes segment, Notes& notes) {
  if (segment.starts_with(EXIF_START)) {
    const Bytes rest = notes.exif ? segment.part(EXIF_START.size()) : segment;
    notes.exif = notes.exif.value_or("") + std::string(rest.text());
  } else if (segment.starts_with(XMP_START)) {
    notes.xmp = segment.part(XMP_START.size()).text();
  }
}

// Quantisation tables must be whole: section B.2.4.1.
void check_tables(Bytes segment) {
  while (!segment.empty()) {
    const size_t length = 1 + 64 * (segment.data()[0] / 16 == 0 ? 1 : 2);
    if (segment.size() < length) damaged_header("bad quantization table marker");
    segment = segment.part(length);
  }
}

// Goes through the markers up to the first scan, as Pillow does to identify a file.
Header read_header(Bytes file) {
  Header header;
  size_t at = 2;
  while (at + 1 < file.size()) {
    if (file.data()[at] != 0xff) {
      ++at;  // junk between markers
      continue;
    }
    const unsigned marker = file.data()[at + 1];
    if (marker == 0xff) {
      ++at;  // padding
      continue;
    }
    at += 2;
    if (marker == 0 || stands_alone(marker)) continue;
    if (marker < 0xc0) damaged_header("no marker found");
    const auto length = file.number(at, 2, true);
    if (!length) damaged_header("it ends within its header");
    const Bytes segment = file.part(at + 2, std::max<size_t>(*length, 2) - 2);
    if (segment.size() + 2 < *length) throw ImageError("damaged: Truncated File Read");
    at += 2 + segment.size();
    if (is_frame(marker)) read_frame(segment, header);
    if (marker == 0xdb) check_tables(segment);
    if (marker == 0xe1) read_notes(segment, header.notes);
    if (marker == 0xda) break;
  }
  if (header.width == 0 || header.height == 0) damaged_header("not identified by this driver");
  return header;
}

// libjpeg's decoder for one file in memory. No exception passes through libjpeg: its errors jump
// back to `decode`, which holds nothing that would have to be destroyed.
class Decoder {
 public:
  Decoder(Bytes file, const Header& header, std::vector<uint8_t>& pixels)
      : header_(header), pixels_(pixels) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = [](j_common_ptr info) { std::longjmp(self(info).back_, 1); };
    errors_.output_message = [](j_common_ptr) {};
    source_.init_source = [](j_decompress_ptr) {};
    source_.term_source = [](j_decompress_ptr) {};
    // The whole file is there from the start: wanting more means that it was cut off.
    source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
    source_.skip_input_data = [](j_decompress_ptr info, long count) {
      jpeg_source_mgr& source = *info->src;
      const auto skipped =
          std::min(source.bytes_in_buffer, static_cast<size_t>(std::max(count, 0L)));
      source.next_input_byte += skipped;
      source.bytes_in_buffer -= skipped;
    };
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.next_input_byte = file.data();
    source_.bytes_in_buffer = file.size();
    progress_.progress_monitor = [](j_common_ptr info) {
      const auto* decompress = reinterpret_cast<j_decompress_ptr>(info);
      if (decompress->input_scan_number > MOST_SCANS) std::longjmp(self(info).back_, 1);
    };
  }
  ~Decoder() { jpeg_destroy_decompress(&info_); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  enum class Outcome { whole, truncated, broken };

  // Fills the pixels: [height, width, components].
  Outcome decode() {
    if (setjmp(back_) != 0) return Outcome::broken;
    jpeg_create_decompress(&info_);
    info_.src = &source_;
    info_.progress = &progress_;
    int found = JPEG_HEADER_TABLES_ONLY;
    while (found == JPEG_HEADER_TABLES_ONLY) found = jpeg_read_header(&info_, FALSE);
    if (found == JPEG_SUSPENDED) return Outcome::truncated;
    if (info_.image_width != header_.width || info_.image_height != header_.height ||
        info_.num_components != header_.components) {
      return Outcome::broken;
    }
    info_.out_color_space = header_.components == 1   ? JCS_GRAYSCALE
                            : header_.components == 3 ? JCS_RGB
                                                      : JCS_CMYK;
    if (!jpeg_start_decompress(&info_)) return Outcome::truncated;
    const size_t stride = header_.width * static_cast<size_t>(header_.components);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = pixels_.data() + info_.output_scanline * stride;
      if (jpeg_read_scanlines(&info_, &row, 1) != 1) return Outcome::truncated;
    }
    jpeg_finish_decompress(&info_);  // All pixels are there: what follows may be cut off.
    return Outcome::whole;
  }

  // Bytes of the file that were left when the decoder wanted more.
  size_t bytes_left() const { return source_.bytes_in_buffer; }

 private:
  static Decoder& self(j_common_ptr info) { return *static_cast<Decoder*>(info->client_data); }

  const Header& header_;
  std::vector<uint8_t>& pixels_;
  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_source_mgr source_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf back_{};
};

// [height, width, 1 or 4] → RGB. CMYK is taken as inverted, as Adobe writes it and Pillow reads.
std::vector<uint8_t> to_rgb(const std::vector<uint8_t>& pixels, size_t components) {
  std::vector<uint8_t> rgb(pixels.size() / components * 3);
  uint8_t* to = rgb.data();
  for (const uint8_t* from = pixels.data(); to != rgb.data() + rgb.size();
       from += components, to += 3) {
    for (size_t i = 0; i < 3; ++i) {
      if (components == 1) {
        to[i] = from[0];
      } else {
        const unsigned light = from[3];  // 255 − K
        to[i] = static_cast<uint8_t>(light - share_of(255U - from[i], light));
      }
    }
  }
  return rgb;
}

}  // namespace

Image decode_jpeg(Bytes file, int& orientation) {
  const Header header = read_header(file);
  check_pixels(header.width, header.height);
  const auto components = static_cast<size_t>(header.components);
  std::vector<uint8_t> pixels(header.width * header.height * components);
  Decoder decoder(file, header, pixels);
  switch (decoder.decode()) {
    case Decoder::Outcome::whole:
      break;
    case Decoder::Outcome::truncated:
      throw ImageError("damaged: image file is truncated (" + std::to_string(decoder.bytes_left()) +
                       " bytes not processed)");
    case Decoder::Outcome::broken:
      throw ImageError("damaged: broken data stream when reading image file");
  }
  orientation = densepath::orientation(header.notes);
  if (components != 3) pixels = to_rgb(pixels, components);
  return Image{header.height, header.width, 3, std::move(pixels)};
}

}  // namespace densepath
