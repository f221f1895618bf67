// Threads that share out a piece of work, and wait for the next one.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace densepath {

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

// This thread's share of `total`, as [low, high), in whole units.
struct Share {
  int64_t low, high;
  Share(int64_t total, int index, int count, int64_t unit = 1) {
    const int64_t units = (total + unit - 1) / unit;
    low = std::min(total, units * index / count * unit);
    high = std::min(total, units * (index + 1) / count * unit);
  }
};

// GNU OpenMP's `GOMP_parallel`: run(data) by so many threads, or fewer. Where PyTorch has it, its
// threads work for us, too: of two teams one would spin for milliseconds on the cores of the other.
using Parallel = void (*)(void (*run)(void*), void* data, unsigned threads, unsigned flags);

inline Parallel& borrowed() {
  static Parallel parallel = nullptr;
  return parallel;
}

// One team a process: its threads are started when first needed, and live on.
class Team {
 public:
  // The team of this process: a fork has a new one, for threads are not forked.
  static Team& here() {
    static std::mutex mutex;
    static std::unique_ptr<Team> team;
    static pid_t owner = 0;
    const std::lock_guard<std::mutex> lock(mutex);
    if (owner != getpid()) {
      team.release();  // NOLINT: of the parent, whose threads are not here to be joined
      team.reset(new Team);
      owner = getpid();
    }
    return *team;
  }

  ~Team() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
      round_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // work(0) … work(count − 1) at the same time, each by a thread of its own; returns when all have
  // ended. Throws what one of them threw, or std::system_error: a thread could not be started.
  void run(int count, const std::function<void(int)>& work) {
    if (count <= 1) return work(0);
    const std::lock_guard<std::mutex> one_caller(callers_);
    if (borrowed()) return run_on_borrowed(count, work);
    while (static_cast<int>(threads_.size()) < count - 1) {
      const int index = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, index, seen = round_.load()] { serve(index, seen); });
    }
    failure_ = nullptr;
    left_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      count_ = count;
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    attempt(work, 0);
    for (int spins = 0; left_.load(std::memory_order_acquire); ++spins)
      if (spins < SPINS)
        pause();
      else
        std::this_thread::yield();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr int SPINS = 4000;  // some 50 µs: work comes in short pieces

  // Whoever comes takes the next part: the parts, not the threads, decide what is computed.
  void run_on_borrowed(int count, const std::function<void(int)>& work) {
    struct Call {
      Team& team;
      const std::function<void(int)>& work;
      int count;
      std::atomic<int> next{0};
    } call{*this, work, count};
    failure_ = nullptr;
    borrowed()(
        [](void* data) {
          Call& held = *static_cast<Call*>(data);
          for (int part; (part = held.next.fetch_add(1)) < held.count;)
            held.team.attempt(held.work, part);
        },
        &call, static_cast<unsigned>(count), 0);
    if (failure_) std::rethrow_exception(failure_);
  }

  void serve(int index, uint64_t seen) {
    for (;;) {
      for (int spins = 0; spins < SPINS && round_.load(std::memory_order_acquire) == seen; ++spins)
        pause();
      const std::function<void(int)>* work;
      int count;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load() != seen; });
        if (ended_) return;
        seen = round_.load();
        work = work_;
        count = count_;
      }
      if (index < count) attempt(*work, index);
      left_.fetch_sub(1, std::memory_order_release);
    }
  }

  void attempt(const std::function<void(int)>& work, int index) {
    try {
      work(index);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  std::atomic<uint64_t> round_{0};
  std::atomic<int> left_{0};
  const std::function<void(int)>* work_ = nullptr;
  int count_ = 0;
  bool ended_ = false;
  std::exception_ptr failure_;
};

}  // namespace densepath
