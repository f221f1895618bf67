#include "flow.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "decode.hpp"
#include "text.hpp"

namespace densepath {
namespace {

// The graphs' memory grows with the longer side: 60 million pixels in one row took 24 GB.
constexpr size_t MOST_SIDE = size_t{1} << 18;
// So long a free stream waits for one more image before it answers those that are there.
constexpr std::chrono::milliseconds PATIENCE(5);

}  // namespace

std::vector<float> fit(const Image& image, Fitter& fitter) {
  if (std::max(image.height, image.width) > MOST_SIDE) {
    throw ImageError(std::to_string(image.width) + " × " + std::to_string(image.height) +
                     " has a side of more than the " + with_commas(MOST_SIDE) +
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

Ready read_one(const Source& source, Fitter& fitter, const ReadAs& read_as) {
  if (source.error) return {source.path, {}, source.error};
  return ready_or_why(source.path, [&] {
    return fit(source.bytes ? open_image_bytes(Bytes(*source.bytes), read_as)
                            : open_image(source.path, read_as),
               fitter);
  });
}

Flow::Flow(Coming coming, Answer answer, Backend& backend, FlowLayout layout)
    : coming_(std::move(coming)),
      answer_(std::move(answer)),
      layout_(layout),
      free_streams_(layout.streams) {
  const size_t num_workers = num_readers(layout.streams);
  for (size_t i = 0; i < num_workers; ++i) fitters_.push_back(backend.make_fitter());
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
  coming_.waiting ? fill_live() : fill();
  if (pending_.empty()) return {};
  auto answers = pending_.front().get();
  pending_.pop_front();
  return answers;
}

// Hands out images until two batches a stream are on their way. The first batches are of one
// image, then of 2, 4, …, so that the first answers come early.
void Flow::fill() {
  while (!exhausted_ && pending_.size() <= 2 * layout_.streams) {
    while (!exhausted_ && taken_.size() < size_ * layout_.streams) take();
    hand_out();
  }
}

// As `fill`, until the first answers are made; a free stream waits for no image.
void Flow::fill_live() {
  while (!first_is_done(std::chrono::milliseconds(0))) {
    if ((exhausted_ && taken_.empty()) || pending_.size() > 2 * layout_.streams) return;
    if (exhausted_ || taken_.size() >= size_ * layout_.streams) {
      hand_out();
    } else if (pending_.empty() && taken_.empty()) {
      take();
    } else if (wait_for_next()) {
      take();
    } else if (!taken_.empty() && count_running() < layout_.streams) {
      hand_out();
    }
  }
}

// Whether the next image is there, or comes soon; also returns when an answer is made.
bool Flow::wait_for_next() {
  if (!taken_.empty() && count_running() < layout_.streams) return coming_.waiting(PATIENCE);
  return coming_.waiting(std::chrono::milliseconds(0)) ||
         (!first_is_done(PATIENCE) && coming_.waiting(std::chrono::milliseconds(0)));
}

// Whether the answers of the first batch on its way are made; so long it waits for them.
bool Flow::first_is_done(std::chrono::milliseconds time) {
  return !pending_.empty() && pending_.front().wait_for(time) == std::future_status::ready;
}

// The batches that are not answered yet.
size_t Flow::count_running() {
  const auto runs = [](const std::future<std::vector<Prediction>>& answers) {
    return answers.wait_for(std::chrono::milliseconds(0)) != std::future_status::ready;
  };
  return static_cast<size_t>(std::count_if(pending_.begin(), pending_.end(), runs));
}

void Flow::take() {
  auto source = coming_.next();
  exhausted_ = !source;
  if (source) taken_.push_back(std::move(*source));
}

// Shares the images that were taken out to the streams evenly.
void Flow::hand_out() {
  const bool alone = coming_.waiting && taken_.size() == 1 && pending_.empty();
  const size_t share = (taken_.size() + layout_.streams - 1) / layout_.streams;
  for (size_t start = 0; start < taken_.size(); start += share) {
    const size_t end = std::min(start + share, taken_.size());
    const auto at = [&](size_t i) { return taken_.begin() + static_cast<ptrdiff_t>(i); };
    Batch batch{{at(start), at(end)}, alone, {}};
    pending_.push_back(batch.answers.get_future());
    {
      const std::lock_guard lock(mutex_);
      batches_.push_back(std::move(batch));
    }
    wake_.notify_one();
  }
  taken_.clear();
  size_ = std::min(2 * size_, layout_.batch_size);
}

// One thread's life.
void Flow::work(Fitter& fitter) {
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !batches_.empty(); });
    if (stopping_) return;
    Batch batch = std::move(batches_.front());
    batches_.pop_front();
    lock.unlock();
    try {
      batch.answers.set_value(compute(batch, fitter));
    } catch (...) {
      batch.answers.set_exception(std::current_exception());
    }
  }
}

std::vector<Prediction> Flow::compute(const Batch& batch, Fitter& fitter) {
  std::vector<Ready> images;
  for (const Source& source : batch.sources) {
    images.push_back(read_one(source, fitter, layout_.read_as));
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
  return answer_(images, batch.alone);
}

}  // namespace densepath
