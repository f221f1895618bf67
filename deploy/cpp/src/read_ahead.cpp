#include "read_ahead.hpp"

#include <new>
#include <utility>

#include "decode.hpp"

namespace densepath {

Ready read_one(const Source& source, Fitter& fitter, std::size_t channels) {
  if (source.error) return {source.path, {}, source.error};
  try {
    return {source.path, fitter.fit(open_image(source.path, channels)), std::nullopt};
  } catch (const ImageError& error) {
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
