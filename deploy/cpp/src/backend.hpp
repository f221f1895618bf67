// The one protocol of the runtimes: a file's pixels become an input, inputs become logits.
//
// A new runtime is one file with one class that `backends.cpp` lists.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "densepath/predictor.hpp"

namespace densepath {

// The preprocess graph, or what gives the same bytes, for one thread.
class Fitter {
 public:
  virtual ~Fitter() = default;

  // Resized, cropped, normalised: float32 [channels, height, width]. Throws Error.
  virtual std::vector<float> fit(const Image& image) = 0;
};

// A Bundle's network, loaded by one runtime.
class Backend {
 public:
  virtual ~Backend() = default;

  // Preprocessing for one more thread. Safe to call from several threads.
  virtual std::unique_ptr<Fitter> make_fitter() = 0;

  // float32 [count, channels, height, width] → logits [count, num_classes], on all cores. One
  // thread at a time, though others may be in `run_share`. Throws Error.
  virtual std::vector<float> run(const std::vector<float>& images, size_t count) = 0;

  // As `run`, on one stream. Safe to call from several threads; more of them than there are
  // streams only wait for one another. Throws Error.
  virtual std::vector<float> run_share(const std::vector<float>& images, size_t count) = 0;

  // The runtime and its version, for reports: "openvino 2026.4.1".
  virtual std::string description() const = 0;
};

// The back end that `settings.backend` names: itself, or for "auto" the first whose format the
// Bundle has and that computes in `settings.precision`.
//
// Throws UsageError (unknown, not built in, not for this processor, or not in that precision) and
// BundleError (the Bundle has no format of theirs).
std::string choose_backend(const Settings& settings, const Bundle& bundle);

// A loaded back end. `settings.backend` must be one of `backend_names()`.
std::unique_ptr<Backend> make_backend(const Bundle& bundle, const Settings& settings);

// What each runtime's file gives; only those that were built exist.
std::unique_ptr<Backend> make_native(const Bundle& bundle, const Settings& settings);
std::unique_ptr<Backend> make_openvino(const Bundle& bundle, const Settings& settings);
std::unique_ptr<Backend> make_onnxruntime(const Bundle& bundle, const Settings& settings);

// Why our kernels are not quick, or not right, in bfloat16 here, or an empty text. Only where
// `processor_obstacle` is empty.
std::string native_bfloat16_obstacle();
// Whether their bfloat16 goes through AMX, with which they round more.
bool native_has_amx();

// Threads of the network: as asked, or as many as the machine has cores.
size_t num_threads(const Settings& settings);

// Threads that read and resize images, each with a fitter of its own: one more than the streams,
// which reads while all streams compute.
size_t num_readers(size_t streams);

// Images of one run of a stream: as asked, or few, which keep the maps of one core in its caches.
size_t batch_size(const Settings& settings);

// The logits go to `to`. Throws Error: they are not as many as the manifest says.
void copy_logits(const float* logits, size_t found, size_t expected, float* to);

// Throws Error with a runtime's own words, in one line.
[[noreturn]] void runtime_error(const std::string& what, const std::exception& error);

}  // namespace densepath
