// Decodes every file named on standard input and prints a line for each: the size and the SHA-256
// of its pixels, or why it is refused. fuzz/mutate.py feeds it damaged files.
#include <iostream>
#include <string>

#include "decode.hpp"
#include "sha256.hpp"

int main(int argc, char** argv) {
  const size_t channels = argc > 1 && std::string(argv[1]) == "1" ? 1 : 3;
  std::string path;
  while (std::getline(std::cin, path)) {
    try {
      const densepath::Image image = densepath::open_image(path, channels);
      std::cout << "pixels " << image.height << " " << image.width << " " << image.channels << " "
                << densepath::sha256(image.pixels.data(), image.pixels.size()) << std::endl;
    } catch (const densepath::ImageError& error) {
      std::cout << "refused " << error.what() << std::endl;
    }
  }
}
