#include "cores.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <fstream>
#include <thread>

namespace densepath {
namespace {

// Linux's control groups, version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
constexpr char QUOTA_FILE[] = "/sys/fs/cgroup/cpu.max";

size_t quota(size_t otherwise) {
  std::ifstream file(QUOTA_FILE);
  size_t allowed = 0, period = 0;
  return file >> allowed >> period && period > 0 ? allowed / period : otherwise;
}

size_t cores_by_affinity() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return static_cast<size_t>(CPU_COUNT(&set));
  }
#endif
  return std::thread::hardware_concurrency();
}

}  // namespace

size_t usable_cores() {
  const size_t cores = std::max<size_t>(cores_by_affinity(), 1);
  return std::max<size_t>(std::min(cores, quota(cores)), 1);
}

}  // namespace densepath
