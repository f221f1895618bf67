// The library that `native.py` calls: a network from a plan, logits from images.
//
// The plan is two arrays, integers and float32, written by `plan.py` in the order read here.
#include <cstdio>
#include <exception>
#include <string>

#include "network.hpp"
#include "resize.hpp"

namespace densepath {

constexpr int PLAN_VERSION = 1;
thread_local std::string failure;

class Reader {
 public:
  Reader(const int32_t* integers, int64_t num_integers, const float* numbers, int64_t num_numbers)
      : integers_(integers), integers_end_(integers + num_integers), numbers_(numbers),
        numbers_end_(numbers + num_numbers) {}

  int integer() {
    if (integers_ == integers_end_) throw std::runtime_error("the plan ends too early");
    return *integers_++;
  }
  int integer(int low, int high) {
    const int value = integer();
    if (value < low || value > high) throw std::runtime_error("the plan has an impossible number");
    return value;
  }
  const float* numbers(int64_t count) {
    if (numbers_end_ - numbers_ < count) throw std::runtime_error("the plan lacks weights");
    const float* from = numbers_;
    numbers_ += count;
    return from;
  }
  Floats vector(int count) {
    Floats held = floats(round_up(count, PANEL));
    std::memcpy(held.get(), numbers(count), sizeof(float) * count);
    return held;
  }
  Norm norm(int channels) {
    Floats scale = vector(channels);
    return {std::move(scale), vector(channels)};
  }
  Packed matrix(int inputs, int outputs) {
    return Packed(numbers(static_cast<int64_t>(inputs) * outputs), inputs, outputs);
  }
  void end() const {
    if (integers_ != integers_end_ || numbers_ != numbers_end_)
      throw std::runtime_error("the plan has more than the network needs");
  }

 private:
  const int32_t *integers_, *integers_end_;
  const float *numbers_, *numbers_end_;
};

constexpr int MOST = 1 << 16;  // channels, layers: above any network of the two families

Pointwise read_pointwise(Reader& plan, int inputs, int outputs, bool norm, bool bias, bool relu) {
  Pointwise layer;
  if (norm) layer.norm = plan.norm(inputs);
  layer.weights = plan.matrix(inputs, outputs);
  if (bias) layer.bias = plan.vector(outputs);
  layer.relu = relu;
  return layer;
}

Convolution read_convolution(Reader& plan, int inputs, int outputs, int groups, int stride,
                             bool winograd, bool bias) {
  Convolution layer;
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.stride = stride;
  layer.set_weights(plan.numbers(static_cast<int64_t>(9) * (inputs / groups) * outputs), groups,
                    winograd);
  if (bias) layer.bias = plan.vector(outputs);
  layer.relu = bias;
  return layer;
}

// A dense block and the transition behind it: `width` channels enter.
Stage read_dense(Reader& plan, int& width) {
  Stage stage;
  const int layers = plan.integer(1, MOST), middle = plan.integer(0, MOST);
  const int growth = plan.integer(1, MOST), next = plan.integer(0, MOST);
  const bool winograd = plan.integer(0, 1) && (middle ? middle : width + layers * growth) <= KC;
  for (int i = 0; i < layers; ++i, width += growth) {
    DenseLayer layer;
    layer.column = width;
    if (middle)
      layer.squeeze = read_pointwise(plan, width, middle, true, true, true);
    else
      layer.norm = plan.norm(width);
    layer.conv = read_convolution(plan, middle ? middle : width, growth, 1, 1, winograd, false);
    stage.layers.push_back(std::move(layer));
  }
  stage.ld = round_up(width, LANES);
  if (next) {
    stage.transition = read_pointwise(plan, width, next, true, false, false);
    stage.transition.reading = Reading::averages;
    width = next;
  }
  return stage;
}

// A stage of a DPN: `width` channels enter.
Stage read_dual(Reader& plan, int& width) {
  Stage stage;
  const int blocks = plan.integer(1, MOST), base = plan.integer(1, MOST);
  const int increment = plan.integer(1, MOST), middle = plan.integer(1, MOST);
  const int groups = plan.integer(1, middle), stride = plan.integer(1, 2);
  if (middle % groups) throw std::runtime_error("the plan has uneven groups");
  for (int i = 0; i < blocks; ++i) {
    DualPathBlock block;
    block.first = i == 0;
    block.base = base;
    const int in = width, step = block.first ? stride : 1;
    if (block.first) {
      width = base + 2 * increment;
      block.project = read_pointwise(plan, in, width, true, false, false);
      if (step == 2) block.project.reading = Reading::every_second;
    }
    block.column = width;
    block.a = read_pointwise(plan, in, middle, true, true, true);
    block.b = read_convolution(plan, middle, middle, groups, step, false, true);
    block.to_residual = read_pointwise(plan, middle, base, false, false, false);
    block.to_dense = read_pointwise(plan, middle, increment, false, false, false);
    width += increment;
    stage.blocks.push_back(std::move(block));
  }
  stage.ld = round_up(width, LANES);
  return stage;
}

Network read_network(Reader& plan) {
  if (plan.integer() != PLAN_VERSION) throw std::runtime_error("the plan has another version");
  Network net;
  Stem& stem = net.stem;
  const bool dual = plan.integer(0, 1);
  const int classes = plan.integer(1, 1 << 24);
  stem.channels = plan.integer(1, MOST);
  stem.kernel = plan.integer(1, 15);
  stem.stride = plan.integer(1, 2);
  stem.outputs = plan.integer(1, MOST);
  stem.relu = plan.integer(0, 1);
  stem.pool = static_cast<StemPool>(plan.integer(0, 2));
  const int stages = plan.integer(1, 64);
  stem.weights = plan.matrix(stem.kernel * stem.kernel * stem.channels, stem.outputs);
  stem.bias = plan.vector(stem.outputs);
  int width = stem.outputs;
  for (int i = 0; i < stages; ++i)
    net.stages.push_back(dual ? read_dual(plan, width) : read_dense(plan, width));
  net.num_features = width;
  net.last = plan.norm(width);
  net.classifier = plan.matrix(width, classes);
  net.classifier_bias = plan.vector(classes);
  plan.end();
  return net;
}

// A network and the memory that its runs share.
struct Session {
  Network net;
  Pool<Scratch> scratches;
  Pool<Workspace> workspaces;
  std::mutex mutex;
  int height = 0, width = 0;  // that the pooled workspaces are made for

  explicit Session(Network made) : net(std::move(made)) {}

  // One pooled workspace size at a time: another size lets go of the last one's memory.
  bool prepare(int h, int w) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (h != height || w != width) workspaces.clear();
    height = h;
    width = w;
    return true;
  }
  void give_back(std::unique_ptr<Workspace> one, int h, int w) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (h == height && w == width) workspaces.give(std::move(one));
  }
  std::unique_ptr<Workspace> workspace(int h, int w) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (h != height || w != width) return net.workspace(h, w);
    return workspaces.take([&] { return net.workspace(h, w); });
  }
};

// Whole images are shared out among the threads; those left over are worked on by all together.
void run(Session& session, const float* images, int count, int height, int width, float* logits,
         int threads) {
  const Network& net = session.net;
  session.prepare(height, width);
  threads = std::max(1, threads);
  std::vector<float> features(static_cast<size_t>(count) * net.num_features + LANES);
  const size_t image = static_cast<size_t>(net.stem.channels) * height * width;
  const int whole = count / threads * threads;
  std::vector<std::unique_ptr<Workspace>> spaces(threads);
  std::vector<std::unique_ptr<Scratch>> own(threads);
  for (int i = 0; i < threads; ++i) {
    own[i] = session.scratches.take([] { return std::make_unique<Scratch>(); });
    if (i == 0 || whole) spaces[i] = session.workspace(height, width);
  }
  std::atomic<int> next{0};
  Barrier together;
  const auto work = [&](int index) {
    Barrier alone;
    for (int k; (k = next.fetch_add(1)) < whole;)
      net.run(images + k * image, height, width,
              features.data() + static_cast<size_t>(k) * net.num_features, *spaces[index],
              *own[index], Part{0, 1, &alone});
    if (whole == count) return;
    together.wait(threads);
    for (int k = whole; k < count; ++k)
      net.run(images + k * image, height, width,
              features.data() + static_cast<size_t>(k) * net.num_features, *spaces[0], *own[index],
              Part{index, threads, &together});
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
  for (int p = 0; p < count; p += ROWS) {
    const int rows = std::min(ROWS, count - p);
    product(
        net.classifier, rows,
        [&](int first, int length, float* to) {
          for (int r = 0; r < rows; ++r)
            std::memcpy(to + static_cast<long>(r) * LDA,
                        features.data() + static_cast<size_t>(p + r) * net.num_features + first,
                        sizeof(float) * length);
        },
        logits + static_cast<size_t>(p) * net.classifier.outputs, net.classifier.outputs,
        {net.classifier_bias.get(), false, false}, own[0]->left.get());
  }
  for (auto& one : spaces)
    if (one) session.give_back(std::move(one), height, width);
  for (auto& one : own) session.scratches.give(std::move(one));
}

}  // namespace densepath

extern "C" {

// The reason of the last failure in this thread.
const char* densepath_failure() { return densepath::failure.c_str(); }

// A network, or null.
void* densepath_open(const int32_t* integers, int64_t num_integers, const float* numbers,
                     int64_t num_numbers) {
  try {
    densepath::Reader plan(integers, num_integers, numbers, num_numbers);
    return new densepath::Session(densepath::read_network(plan));
  } catch (const std::exception& error) {
    densepath::failure = error.what();
    return nullptr;
  }
}

// images [count, channels, height, width] → logits [count, classes]; 0, or 1 on failure.
int densepath_run(void* network, const float* images, int32_t count, int32_t height, int32_t width,
                  float* logits, int32_t threads) {
  try {
    densepath::run(*static_cast<densepath::Session*>(network), images, count, height, width, logits,
                   threads);
    return 0;
  } catch (const std::exception& error) {
    densepath::failure = error.what();
    return 1;
  }
}

// Whether `densepath_resize` is quicker than Pillow on this CPU.
int densepath_resizes_quickly() { return densepath::RESIZES_QUICKLY; }

// image [height, width, channels] → to [num_rows, num_columns, channels], both with 64 bytes to
// spare. For each new row and column its first old one and its weights.
void densepath_resize(const uint8_t* image, int32_t width, int32_t channels,
                      const int32_t* row_first, const int32_t* row_weights, int32_t num_rows,
                      int32_t row_taps, const int32_t* column_first, const int32_t* column_weights,
                      int32_t num_columns, int32_t column_taps, int32_t height_first, uint8_t* to) {
  densepath::resize(image, width, channels, {num_rows, row_taps, row_first, row_weights},
                    {num_columns, column_taps, column_first, column_weights}, height_first != 0, to);
}

void densepath_close(void* network) { delete static_cast<densepath::Session*>(network); }
}
