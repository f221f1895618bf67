// The library in a program of one's own: the likeliest class of each image named.
#include <densepath/predictor.hpp>
#include <iostream>

int main(int argc, char** argv) {
  try {
    densepath::Predictor predictor(argc > 1 ? argv[1] : "my-bundle");
    for (int i = 2; i < argc; ++i) {
      const auto answer = predictor.predict(argv[i]);
      std::cout << argv[i] << ": " << (answer.error ? *answer.error : answer.labels[0]) << "\n";
    }
  } catch (const densepath::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
}
