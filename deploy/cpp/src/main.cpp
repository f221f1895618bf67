// densepath-predict: images in, one JSON line each out, in order.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "backend.hpp"
#include "benchmark.hpp"
#include "file.hpp"
#include "image_paths.hpp"
#include "lines.hpp"
#include "options.hpp"
#include "text.hpp"

namespace {

using densepath::Error;
using densepath::Prediction;

constexpr size_t NAMED_FAILURES = 10;
constexpr int INTERRUPTED = 130;

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

// The first Ctrl-C ends the run after the batch at hand; a second one ends it at once.
void handle_signals() {
  const auto stop = [](int) { interrupted = true; };
#ifdef _WIN32
  std::signal(SIGINT, stop);
#else
  struct sigaction action{};
  action.sa_handler = stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // Not SA_RESTART: reading a list ends, too.
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // A reader that has gone shows as EPIPE.
#endif
}

void note(const std::string& message) { std::fprintf(stderr, "%s\n", message.c_str()); }

// The reader of our output has gone: nobody to tell.
struct ReaderGone {};

void write_line(const std::string& line) {
  const bool written = std::fputs(line.c_str(), stdout) != EOF && std::fputc('\n', stdout) != EOF &&
                       std::fflush(stdout) == 0;
  if (written) return;
  if (errno == EPIPE) throw ReaderGone{};
  throw Error("cannot write to standard output: " + densepath::system_reason());
}

// Counts answers as they pass, and keeps the first failures by name.
class Tally {
 public:
  void count(const Prediction& prediction) {
    if (!prediction.error) {
      ++answered_;
      return;
    }
    ++failed_;
    if (named_.size() < NAMED_FAILURES)
      named_.push_back(prediction.path + ": " + *prediction.error);
  }

  // What happened, on standard error. Throws Error: nothing was answered.
  void report() const {
    for (const std::string& line : named_) note("could not be read: " + line);
    if (failed_ > named_.size()) {
      note("could not be read: " + densepath::with_commas(failed_ - named_.size()) + " more");
    }
    const std::string failed = densepath::with_commas(failed_) + " could not be read";
    if (answered_ == 0) throw Error("no image was answered; " + failed + ".");
    const size_t total = answered_ + failed_;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    char pace[40];
    std::snprintf(pace, sizeof pace, "%.1f", static_cast<double>(total) / seconds.count());
    note(densepath::with_commas(total) + " images, " + pace + " images/s; " +
         densepath::with_commas(answered_) + " answered" + (failed_ > 0 ? "; " + failed : ""));
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  size_t answered_ = 0, failed_ = 0;
  std::vector<std::string> named_;
};

// What `-` stands for: standard input, or the file that --list names.
std::unique_ptr<densepath::Lines> open_lines(densepath::Options& options) {
  if (!options.list.empty()) options.paths.emplace_back("-");
  if (options.list.empty() || options.list == "-") return std::make_unique<densepath::Lines>();
  return std::make_unique<densepath::Lines>(options.list);
}

int run(densepath::Options options) {
  const auto lines = open_lines(options);
  densepath::ImagePaths paths(options.paths, *lines);
  densepath::Predictor predictor(options.bundle, options.settings);
  if (predictor.reads_values()) paths.read_values();
  if (const std::string why = densepath::processor_obstacle(); !why.empty()) {
    note("the back end " + predictor.settings().backend + " answers: " + why);
  }
  const densepath::Settings& used = predictor.settings();
  if (const std::string& why = predictor.precision_reason(); !why.empty()) {
    note("the back end " + used.backend + " answers in " + used.precision + ": " + why);
  }
  const auto next = [&]() { return interrupted ? std::nullopt : paths.next(); };
  const bool is_live =
      std::find(options.paths.begin(), options.paths.end(), "-") != options.paths.end();
  const auto has_next = [&](std::chrono::milliseconds time) {
    return interrupted || paths.waiting(time);
  };
  const densepath::Predictor::Waiting waiting =
      is_live ? densepath::Predictor::Waiting(has_next) : nullptr;
  if (options.benchmark) {
    write_line(densepath::benchmark(predictor, next, options.repeats, options.top_k));
  } else {
    Tally tally;
    predictor.predict(
        next,
        [&](const Prediction& prediction) {
          if (interrupted) return false;
          write_line(densepath::to_json(prediction));
          tally.count(prediction);
          return true;
        },
        options.top_k, waiting);
    if (!interrupted && !paths.passed_over().empty()) note(paths.passed_over().to_string());
    if (!interrupted) tally.report();
  }
  if (!interrupted) return 0;
  note("interrupted");
  return INTERRUPTED;
}

int run_words(const std::vector<std::string>& words) {
  try {
    const densepath::Options options = densepath::parse_options(words);
    if (options.help) {
      write_line(densepath::help_text());
    } else if (options.version) {
      write_line("densepath-predict " DENSEPATH_VERSION " (" +
                 densepath::join(densepath::backend_names(), ", ") + ")");
    } else {
      return run(options);
    }
    return 0;
  } catch (const Error& error) {
    note(std::string("error: ") + error.what());
    return error.exit_code();
  } catch (const ReaderGone&) {
    return 1;
  } catch (const std::bad_alloc&) {
    note("error: not enough memory; a smaller --batch-size needs less.");
    return 1;
  } catch (const std::system_error& error) {
    note("error: no more threads can be started: " + densepath::system_reason(error.code()) +
         "; a smaller --threads needs fewer.");
    return 1;
  } catch (const std::exception& error) {
    note(std::string("error: ") + error.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  handle_signals();
  return run_words(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
