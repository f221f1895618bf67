#include "read_ahead.hpp"

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

Ready read_one(const Source& source, Fitter& fitter, std::size_t channels) {
  if (source.error) return {source.path, {}, source.error};
  try {
    return {source.path, fit(open_image(source.path, channels), fitter), std::nullopt};
  } catch (const Error& error) {  // Of the file, or of the graph with this image.
    return {source.path, {}, error.what()};
  } catch (const std::bad_alloc&) {
    return {source.path, {}, "not enough memory to decode it"};
  }
}

ReadAhead::ReadAhead(Predictor::Next next, Backend& backend, std::size_t channels,
                     std::size_t num_threads, std::size_t ahead)
    : next_(std::move(next)), channels_(channels), ahead_(ahead) {
  for (std::size_t i = 0; i < num_threads; ++i) fitters_.push_back(backend.make_fitter());
  for (const auto& fitter : fitters_) {
    threads_.emplace_back([this, one = fitter.get()] { work(*one); });
  }
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::optional<Ready> ReadAhead::pop() {
  fill();
  if (pending_.empty()) return std::nullopt;
  Ready ready = pending_.front().get();
  pending_.pop_front();
  return ready;
}

/// Hands out images until `ahead_` are on their way.
void ReadAhead::fill() {
  while (!exhausted_ && pending_.size() <= ahead_) {
    auto source = next_();
    if (!source) {
      exhausted_ = true;
      return;
    }
    Job job{std::move(*source), {}};
    pending_.push_back(job.result.get_future());
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
  }
}

/// One thread's life.
void ReadAhead::work(Fitter& fitter) {
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    try {
      job.result.set_value(read_one(job.source, fitter, channels_));
    } catch (...) {
      job.result.set_exception(std::current_exception());
    }
  }
}

}  // namespace densepath
