// Images read, decoded and resized by threads that run ahead, given out in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend.hpp"
#include "densepath/predictor.hpp"

namespace densepath {

/// An image on its way: its input for the network, or why there is none.
struct Ready {
  std::string path;
  std::vector<float> input;
  std::optional<std::string> error;
};

/// The network's input for an image. Throws ImageError: a side is too long to be resized.
std::vector<float> fit(const Image& image, Fitter& fitter);

/// The answer of one reading: a file's image decoded and fitted.
Ready read_one(const Source& source, Fitter& fitter, std::size_t channels);

/// At most `ahead` images stand ready or are being read at any time.
class ReadAhead {
 public:
  ReadAhead(Predictor::Next next, Backend& backend, std::size_t channels, std::size_t num_threads,
            std::size_t ahead);

  /// Images not yet begun are dropped; those begun are finished first.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// The next image in order; nothing after the last. Rethrows what a thread threw.
  std::optional<Ready> pop();

 private:
  struct Job {
    Source source;
    std::promise<Ready> result;
  };

  void work(Fitter& fitter);
  void fill();

  Predictor::Next next_;
  std::size_t channels_, ahead_;
  bool exhausted_ = false;
  std::deque<std::future<Ready>> pending_;  // Only the caller's thread touches it.

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Fitter>> fitters_;
  std::vector<std::thread> threads_;
};

}  // namespace densepath
