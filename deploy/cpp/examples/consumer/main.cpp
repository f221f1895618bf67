// Answers images that are in memory, as an upload or a camera's frame is, from several threads.
#include <densepath/predictor.hpp>
#include <fstream>
#include <future>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

static_assert(DENSEPATH_VERSION_NUMBER >= 100, "needs densepath 0.1.0");

namespace {

std::vector<char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string answer(densepath::Predictor& predictor, const std::string& path) {
  const std::vector<char> bytes = read(path);
  if (bytes.empty()) return "cannot be read";
  densepath::Prediction best = predictor.predict_bytes(bytes.data(), bytes.size(), 1);
  if (best.error) return *best.error;
  return predictor.labels()[best.class_ids[0]] + " " + std::to_string(best.scores[0]);
}

int run(const std::string& bundle, const std::vector<std::string>& paths) {
  densepath::Predictor predictor(bundle);
  const densepath::InputSize size = predictor.input_size();
  std::cerr << "densepath " DENSEPATH_VERSION ", " << predictor.settings().backend << ": "
            << predictor.model_name() << ", " << predictor.labels().size() << " classes, "
            << size.height << " x " << size.width << " pixels\n";
  std::vector<std::future<std::string>> answers;
  for (const std::string& path : paths) {
    answers.push_back(std::async(std::launch::async, [&] { return answer(predictor, path); }));
  }
  for (std::size_t i = 0; i < paths.size(); ++i) {
    std::cout << paths[i] << ": " << answers[i].get() << "\n";
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "example BUNDLE IMAGE...\n";
    return 2;
  }
  try {
    return run(argv[1], {argv + 2, argv + argc});
  } catch (const densepath::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return error.exit_code();
  }
}
