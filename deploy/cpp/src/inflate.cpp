#include "inflate.hpp"

#include <new>

#include "densepath/predictor.hpp"

namespace densepath {

Inflater::Inflater() {
  if (inflateInit(&stream_) != Z_OK) throw std::bad_alloc();
}

Inflater::~Inflater() { inflateEnd(&stream_); }

void Inflater::feed(Bytes input) {
  // zlib's older headers lack the const; it does not write there.
  stream_.next_in = const_cast<Bytef*>(input.data());
  stream_.avail_in = static_cast<uInt>(input.size());
}

size_t Inflater::fill(uint8_t* to, size_t room) {
  stream_.next_out = to;
  stream_.avail_out = static_cast<uInt>(room);
  const int status = inflate(&stream_, Z_NO_FLUSH);
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  if (status == Z_DATA_ERROR) {
    throw ImageError("damaged: broken data stream when reading image file");
  }
  if (status < 0) throw ImageError("damaged: codec configuration error when reading image file");
  return room - stream_.avail_out;
}

std::optional<std::string> inflate_text(Bytes compressed, size_t most_bytes) {
  std::string text(most_bytes + 1, '\0');
  try {
    Inflater inflater;
    inflater.feed(compressed);
    text.resize(inflater.fill(reinterpret_cast<uint8_t*>(text.data()), text.size()));
  } catch (const ImageError&) {
    return std::nullopt;
  }
  if (text.size() > most_bytes) throw ImageError("damaged: a text of more than 1 MiB");
  return text;
}

}  // namespace densepath
