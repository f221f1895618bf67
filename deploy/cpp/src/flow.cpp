#include "flow.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "decode.hpp"
#include "text.hpp"

namespace densepath {
namespace {

// The graphs' memory grows with the longer side: 60 million pixels in one row took 24 GB.
constexpr std::size_t kMostSide = std::size_t{1} << 18;

}  // namespace

std::vector<float> fit(const Image& image, Fitter& fitter) {
  if (std::max(image.height, image.width) > kMostSide) {
    throw ImageError(std::to_string(image.width) + " × " + std::to_string(image.height) +
                     " has a side of more than the " + with_commas(kMostSide) +
                     " pixels that are resized");
  }
  return fitter.fit(image);
}

Ready ready_or_why(const std::string& path, const std::function<std::vector<float>()>& input) {
  try {
    return {path, input(), std::nullopt};
  } catch (const Error& error) {  // Of the file, or of the graph with this image.
    return {path, {}, error.what()};
  } catch (const std::bad_alloc&) {
    return {path, {}, "not enough memory to decode it"};
  }
}

Ready read_one(const Source& source, Fitter& fitter, std::size_t channels) {
  if (source.error) return {source.path, {}, source.error};
  return ready_or_why(source.path, [&] {
    return fit(source.bytes ? open_image_bytes(Bytes(*source.bytes), channels)
                            : open_image(source.path, channels),
               fitter);
  });
}

Flow::Flow(Predictor::Next next, Answer answer, Backend& backend, FlowLayout layout)
    : next_(std::move(next)),
      answer_(std::move(answer)),
      layout_(layout),
      free_streams_(layout.streams) {
  const std::size_t num_workers = num_readers(layout.streams);
  for (std::size_t i = 0; i < num_workers; ++i) fitters_.push_back(backend.make_fitter());
  try {
    for (const auto& fitter : fitters_) {
      threads_.emplace_back([this, one = fitter.get()] { work(*one); });
    }
  } catch (...) {  // No more threads can be started: those that were must end first.
    stop();
    throw;
  }
}

Flow::~Flow() { stop(); }

void Flow::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    batches_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::vector<Prediction> Flow::pop() {
  fill();
  if (pending_.empty()) return {};
  auto answers = pending_.front().get();
  pending_.pop_front();
  return answers;
}

/// Hands out images until two batches a stream are on their way. The first batches are of one
/// image, then of 2, 4, …, so that the first answers come early.
void Flow::fill() {
  while (!exhausted_ && pending_.size() <= 2 * layout_.streams) {
    std::vector<Source> taken;
    while (!exhausted_ && taken.size() < size_ * layout_.streams) {
      auto source = next_();
      exhausted_ = !source;
      if (source) taken.push_back(std::move(*source));
    }
    hand_out(taken);
    size_ = std::min(2 * size_, layout_.batch_size);
  }
}

/// Shares the images out to the streams evenly.
void Flow::hand_out(const std::vector<Source>& taken) {
  const std::size_t share = (taken.size() + layout_.streams - 1) / layout_.streams;
  for (std::size_t start = 0; start < taken.size(); start += share) {
    const std::size_t end = std::min(start + share, taken.size());
    const auto at = [&](std::size_t i) { return taken.begin() + static_cast<std::ptrdiff_t>(i); };
    Batch batch{{at(start), at(end)}, {}};
    pending_.push_back(batch.answers.get_future());
    {
      const std::lock_guard lock(mutex_);
      batches_.push_back(std::move(batch));
    }
    wake_.notify_one();
  }
}

/// One thread's life.
void Flow::work(Fitter& fitter) {
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !batches_.empty(); });
    if (stopping_) return;
    Batch batch = std::move(batches_.front());
    batches_.pop_front();
    lock.unlock();
    try {
      batch.answers.set_value(compute(batch.sources, fitter));
    } catch (...) {
      batch.answers.set_exception(std::current_exception());
    }
  }
}

std::vector<Prediction> Flow::compute(const std::vector<Source>& sources, Fitter& fitter) {
  std::vector<Ready> images;
  for (const Source& source : sources) {
    images.push_back(read_one(source, fitter, layout_.channels));
  }
  std::unique_lock lock(mutex_);
  stream_free_.wait(lock, [this] { return free_streams_ > 0; });
  --free_streams_;
  lock.unlock();
  // Given back whatever happens.
  const auto give_back = [this](void*) {
    const std::lock_guard again(mutex_);
    ++free_streams_;
    stream_free_.notify_one();
  };
  const std::unique_ptr<void, decltype(give_back)> stream(this, give_back);
  return answer_(images);
}

}  // namespace densepath
