#include "cores.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <fstream>
#include <thread>

namespace densepath {
namespace {

/// Linux's control groups, version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
constexpr char kQuotaFile[] = "/sys/fs/cgroup/cpu.max";

std::size_t quota(std::size_t otherwise) {
  std::ifstream file(kQuotaFile);
  std::size_t allowed = 0, period = 0;
  return file >> allowed >> period && period > 0 ? allowed / period : otherwise;
}

std::size_t cores_by_affinity() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return static_cast<std::size_t>(CPU_COUNT(&set));
  }
#endif
  return std::thread::hardware_concurrency();
}

}  // namespace

std::size_t usable_cores() {
  const std::size_t cores = std::max<std::size_t>(cores_by_affinity(), 1);
  return std::max<std::size_t>(std::min(cores, quota(cores)), 1);
}

}  // namespace densepath
