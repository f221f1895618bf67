// Reads every checkpoint named on standard input and prints a line for each: the smallest side that
// its images may have, and its layers as `serialise` in models/plan.py gives them; or why there are
// none. tests/flow/test_cpp_plan.py compares the two.
#include <exception>
#include <iostream>
#include <string>

#include "checkpoint.hpp"
#include "file.hpp"

namespace densepath {
namespace {

void print_name(const std::string& name) { std::cout << ' ' << (name.empty() ? "-" : name); }

void print_plan(const Plan& plan) {
  std::cout << plan.least_side();
  for (const PlanLayer& layer : plan.layers) {
    for (const std::string& name : {layer.name, layer.before, layer.behind}) print_name(name);
    for (const int number :
         {static_cast<int>(layer.kind), layer.inputs, layer.outputs, layer.kernel, layer.stride,
          layer.groups, static_cast<int>(layer.reads), static_cast<int>(layer.writes),
          static_cast<int>(layer.pool), static_cast<int>(layer.averaged), layer.base, layer.part}) {
      std::cout << ' ' << number;
    }
  }
  std::cout << std::endl;
}

}  // namespace
}  // namespace densepath

int main() {
  std::string path;
  while (std::getline(std::cin, path)) {
    try {
      const densepath::File file(path);
      const densepath::Contents bytes = file.read(file.size());
      densepath::print_plan(densepath::plan_of(densepath::read_checkpoint(bytes, path).arch));
    } catch (const std::exception& error) {
      std::cout << "refused " << error.what() << std::endl;
    }
  }
}
