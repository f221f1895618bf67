// Images through reading and network on all cores at once; answers leave in order.
//
// A worker reads the images of a batch and then runs the network on it, as soon as one of the
// streams is free: a core that has nothing to compute reads, and none waits for another to stack
// a batch. As predict/flow.py does, and predict/live.py where images come in their own time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
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

// An image on its way: its input for the network, or why there is none.
struct Ready {
  std::string path;
  std::vector<float> input;
  std::optional<std::string> error;
};

// The network's input for an image. Throws ImageError: a side is too long to be resized.
std::vector<float> fit(const Image& image, Fitter& fitter);

// The input that `input` makes, or the words of what it throws.
Ready ready_or_why(const std::string& path, const std::function<std::vector<float>()>& input);

// A file's image decoded and fitted.
Ready read_one(const Source& source, Fitter& fitter, const ReadAs& read_as);

// How images are shared out.
struct FlowLayout {
  ReadAs read_as;
  size_t batch_size = 1;  // The most images of a batch.
  size_t streams = 1;     // Batches that the network answers at the same time.
};

// Images to come; `waiting` is empty where they never let one wait.
struct Coming {
  Predictor::Next next;
  Predictor::Waiting waiting;
};

class Flow {
 public:
  // The answers to a batch; `alone`: it is one image, and no other is on its way.
  using Answer = std::function<std::vector<Prediction>(const std::vector<Ready>&, bool alone)>;

  // `answer` is called by as many threads as there are streams.
  Flow(Coming coming, Answer answer, Backend& backend, FlowLayout layout);

  // Batches not yet begun are dropped; those begun are finished first.
  ~Flow();
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  // The answers of the next batch in order; none after the last. At most two batches a stream are
  // on their way. Rethrows what a thread threw. Where images come in their own time, answers that
  // are made do not wait for the next one.
  std::vector<Prediction> pop();

 private:
  struct Batch {
    std::vector<Source> sources;
    bool alone = false;
    std::promise<std::vector<Prediction>> answers;
  };

  void stop();
  void fill();
  void fill_live();
  bool wait_for_next();
  bool first_is_done(std::chrono::milliseconds time);
  size_t count_running();
  void take();
  void hand_out();
  void work(Fitter& fitter);
  std::vector<Prediction> compute(const Batch& batch, Fitter& fitter);

  Coming coming_;
  Answer answer_;
  FlowLayout layout_;
  // Only the caller's thread touches these.
  size_t size_ = 1;
  bool exhausted_ = false;
  std::vector<Source> taken_;  // Of the next batches.
  std::deque<std::future<std::vector<Prediction>>> pending_;

  std::mutex mutex_;
  std::condition_variable wake_, stream_free_;
  std::deque<Batch> batches_;
  size_t free_streams_;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Fitter>> fitters_;
  std::vector<std::thread> threads_;
};

}  // namespace densepath
