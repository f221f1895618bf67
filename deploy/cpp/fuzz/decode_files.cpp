// Decodes every file named on standard input and prints a line for each: the size and the SHA-256
// of its pixels, or why it is refused. fuzz/mutate.py feeds it damaged files.
//
// densepath-decode [CHANNELS [KIND [VALUE VALUE]]]: with KIND an intensity.
#include <iostream>
#include <string>

#include "decode.hpp"
#include "sha256.hpp"

int main(int argc, char** argv) {
  densepath::ReadAs read_as;
  if (argc > 1) read_as.channels = std::stoul(argv[1]);
  if (argc > 2) read_as.intensity = densepath::Intensity{argv[2], {}};
  for (int i = 3; i < argc; ++i) read_as.intensity->values.push_back(std::stod(argv[i]));
  std::string path;
  while (std::getline(std::cin, path)) {
    try {
      const densepath::Image image = densepath::open_image(path, read_as);
      std::cout << "pixels " << image.height << " " << image.width << " " << image.channels << " "
                << densepath::sha256(image.pixels.data(), image.pixels.size()) << std::endl;
    } catch (const densepath::ImageError& error) {
      std::cout << "refused " << error.what() << std::endl;
    }
  }
}
