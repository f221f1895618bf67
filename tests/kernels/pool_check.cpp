// Checks the pooling of a stem in a training step, both ways, against loops in double.
#include "../../src/densepath/kernels/training/pool.hpp"
#include "reference.hpp"

namespace {

using reference::Doubles;
using reference::HeldMaps;
using reference::HeldNorm;

void check(int images, int height, int width, int channels, densepath::Windows windows, int threads,
           reference::Random& random, reference::Errors& errors) {
  std::string name;
  for (const int n : {images, height, width, channels, windows.top, windows.left, threads})
    name += std::to_string(n) + " ";
  HeldMaps x(images, height, width, channels, channels + random.among(0, 5));
  const HeldNorm norm(random, channels);
  x.fill([&](int c) { return norm.value(random, c); });
  const int high = (height + 1) / 2, wide = (width + 1) / 2;
  HeldMaps out(images, high, wide, channels, channels + random.among(0, 5));
  HeldMaps gradient(images, high, wide, channels, channels + random.among(0, 5));
  gradient.fill([&](int) { return random.uniform(-1, 1); });
  HeldMaps into(images, height, width, channels, channels + random.among(0, 5));
  std::vector<uint8_t> taken(static_cast<size_t>(images) * high * wide * channels, 99);
  Doubles sum(channels, NAN), product(channels, NAN);
  pool(x.maps, norm.norms(), windows, out.maps, taken.data(), threads);
  pool_backward(x.maps, norm.norms(), windows, taken.data(), gradient.maps, into.maps,
                {sum.data(), product.data()}, threads);

  const Doubles input = reference::activate(x, norm), given = gradient.doubles();
  const Doubles values = x.doubles();
  Doubles wanted(given.size()), behind(input.size());
  for (int n = 0; n < images; ++n)
    for (int y = 0; y < high; ++y)
      for (int across = 0; across < wide; ++across)
        for (int c = 0; c < channels; ++c) {
          double most = -INFINITY;
          size_t place = 0;
          for (int tap = 0; tap < 9; ++tap) {
            const int i = 2 * y + windows.top + tap / 3, j = 2 * across + windows.left + tap % 3;
            if (i < 0 || i >= height || j < 0 || j >= width) continue;
            const size_t at = ((static_cast<size_t>(n) * height + i) * width + j) * channels + c;
            const double value = values[at] * norm.scale[c] + norm.shift[c];
            if (value <= most) continue;
            most = value;
            place = at;
          }
          const size_t to = ((static_cast<size_t>(n) * high + y) * wide + across) * channels + c;
          wanted[to] = input[place];
          behind[place] += given[to];
        }
  const reference::Backward back(x, norm, behind);
  errors.compare(name + "out", out.doubles(), wanted);
  errors.compare(name + "into", into.doubles(), back.into);
  errors.compare(name + "gradient", sum, back.gradient);
  errors.compare(name + "product", product, back.product);
  errors.require(name + "written beside", out.is_whole() && into.is_whole());
}

}  // namespace

int main() {
  reference::Random random(1);
  reference::Errors errors;
  for (int i = 0; i < 60; ++i) {
    const int height = random.among(1, 12), width = random.among(1, 12);
    const bool bordered = random.among(0, 1) != 0;
    const densepath::Windows windows =
        bordered ? densepath::Windows{-1, -1} : densepath::Windows{-(height % 2), -(width % 2)};
    check(random.one_of({1, 2, 3, 5}), height, width, random.one_of({1, 5, 10, 16, 64, 96}),
          windows, random.one_of({1, 2, 3, 7}), random, errors);
  }
  return errors.report("pool");
}
