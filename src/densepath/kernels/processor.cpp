// Asks the processor what it has, by instructions and calls that every processor of its kind knows.
//
// Compiled without the kernels' options: where kernels cannot run, this says so.
#include "processor.hpp"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace densepath {
namespace {

#if defined(__x86_64__) || defined(__i386__)

enum Register { EAX, EBX, ECX, EDX };

// What the system must keep when threads change: bits of XCR0.
constexpr std::uint64_t NOTHING = 0, YMM = 0x6, ZMM = 0xe6;
constexpr unsigned OSXSAVE = 1U << 27;

struct Feature {
  const char* name;
  unsigned leaf, subleaf;
  Register where;
  int bit;
  std::uint64_t kept;
};

// Source: Intel's Software Developer's Manual, volume 2A, CPUID; AMD's APM volume 3, appendix E.
constexpr Feature FEATURES[] = {
    {"sse3", 1, 0, ECX, 0, NOTHING},
    {"ssse3", 1, 0, ECX, 9, NOTHING},
    {"sse4_1", 1, 0, ECX, 19, NOTHING},
    {"sse4_2", 1, 0, ECX, 20, NOTHING},
    {"popcnt", 1, 0, ECX, 23, NOTHING},
    {"movbe", 1, 0, ECX, 22, NOTHING},
    {"lzcnt", 0x80000001, 0, ECX, 5, NOTHING},
    {"bmi1", 7, 0, EBX, 3, NOTHING},
    {"bmi2", 7, 0, EBX, 8, NOTHING},
    {"tbm", 0x80000001, 0, ECX, 21, NOTHING},
    {"avx", 1, 0, ECX, 28, YMM},
    {"f16c", 1, 0, ECX, 29, YMM},
    {"fma", 1, 0, ECX, 12, YMM},
    {"fma4", 0x80000001, 0, ECX, 16, YMM},
    {"xop", 0x80000001, 0, ECX, 11, YMM},
    {"avx2", 7, 0, EBX, 5, YMM},
    {"gfni", 7, 0, ECX, 8, NOTHING},
    {"avx_vnni", 7, 1, EAX, 4, YMM},
    {"avx_ifma", 7, 1, EAX, 23, YMM},
    {"avx_vnni_int8", 7, 1, EDX, 4, YMM},
    {"avx_ne_convert", 7, 1, EDX, 5, YMM},
    {"avx512f", 7, 0, EBX, 16, ZMM},
    {"avx512cd", 7, 0, EBX, 28, ZMM},
    {"avx512dq", 7, 0, EBX, 17, ZMM},
    {"avx512bw", 7, 0, EBX, 30, ZMM},
    {"avx512vl", 7, 0, EBX, 31, ZMM},
    {"avx512ifma", 7, 0, EBX, 21, ZMM},
    {"avx512vbmi", 7, 0, ECX, 1, ZMM},
    {"avx512_vbmi2", 7, 0, ECX, 6, ZMM},
    {"avx512_vnni", 7, 0, ECX, 11, ZMM},
    {"avx512_bitalg", 7, 0, ECX, 12, ZMM},
    {"avx512_vpopcntdq", 7, 0, ECX, 14, ZMM},
    {"avx512_bf16", 7, 1, EAX, 5, ZMM},
    {"avx512_fp16", 7, 0, EDX, 23, ZMM},
};

// The levels of the x86-64 psABI, the best first, and what they add to the next.
constexpr const char* V3[] = {"avx", "avx2",  "bmi1",  "bmi2", "f16c",
                              "fma", "lzcnt", "movbe", nullptr};
constexpr const char* V2[] = {"sse3", "ssse3", "sse4_1", "sse4_2", "popcnt", nullptr};

struct Registers {
  unsigned of[4] = {0, 0, 0, 0};
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers found;
  if (!__get_cpuid_count(leaf, subleaf, &found.of[EAX], &found.of[EBX], &found.of[ECX],
                         &found.of[EDX])) {
    return {};
  }
  return found;
}

// XCR0; zero where the system has not switched it on.
std::uint64_t kept_by_system() {
  if (!(cpuid(1, 0).of[ECX] & OSXSAVE)) return 0;
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

bool has(const char* name) {
  for (const Feature& feature : FEATURES) {
    if (std::strcmp(feature.name, name) != 0) continue;
    const unsigned found = cpuid(feature.leaf, feature.subleaf).of[feature.where];
    const bool kept = (kept_by_system() & feature.kept) == feature.kept;
    return (found >> feature.bit & 1) != 0 && kept;
  }
  return true;
}

#elif defined(__aarch64__) && defined(__linux__)

struct Feature {
  const char* name;
  unsigned long kind;
  int bit;
};

// Source: Linux, arch/arm64/include/uapi/asm/hwcap.h.
constexpr Feature FEATURES[] = {
    {"atomics", AT_HWCAP, 8},  {"asimdhp", AT_HWCAP, 10}, {"asimdrdm", AT_HWCAP, 12},
    {"jscvt", AT_HWCAP, 13},   {"fcma", AT_HWCAP, 14},    {"lrcpc", AT_HWCAP, 15},
    {"asimddp", AT_HWCAP, 20}, {"sve", AT_HWCAP, 22},     {"asimdfhm", AT_HWCAP, 23},
    {"sve2", AT_HWCAP2, 1},    {"frint", AT_HWCAP2, 8},   {"i8mm", AT_HWCAP2, 13},
    {"bf16", AT_HWCAP2, 14},
};

bool has(const char* name) {
  for (const Feature& feature : FEATURES) {
    if (std::strcmp(feature.name, name) == 0) return getauxval(feature.kind) >> feature.bit & 1;
  }
  return true;
}

#else

bool has(const char*) { return true; }

#endif

std::string lacking_of(const char* const* needs) {
  std::string names;
  for (; *needs != nullptr; ++needs) {
    if (has(*needs)) continue;
    if (!names.empty()) names += ", ";
    names += *needs;
  }
  return names;
}

}  // namespace

std::string lacking() { return lacking_of(NEEDS); }

bool has_vnni() { return has("avx_vnni") || has("avx512_vnni"); }

std::string processor_name() {
#if defined(__x86_64__) || defined(__i386__)
  constexpr unsigned kFirst = 0x80000002, kLast = 0x80000004;
  std::string name;
  for (unsigned leaf = kFirst; leaf <= kLast; ++leaf) {
    const Registers part = cpuid(leaf, 0);
    name.append(reinterpret_cast<const char*>(part.of), sizeof part.of);
  }
  name = name.c_str();  // It ends with zeros.
  const std::size_t start = name.find_first_not_of(' ');
  if (start == std::string::npos) return "an x86 processor";
  return name.substr(start, name.find_last_not_of(' ') + 1 - start);
#elif defined(__aarch64__)
  return "an aarch64 processor";
#else
  return "a processor of another architecture";
#endif
}

std::string processor_level() {
#if defined(__x86_64__)
  if (!lacking_of(V2).empty()) return "x86-64";
  return lacking_of(V3).empty() ? "x86-64-v3" : "x86-64-v2";
#elif defined(__aarch64__)
  return "armv8-a";
#else
  return "native";
#endif
}

}  // namespace densepath

// For Python, in the place of the kernels: what they lack here, or an empty text.
extern "C" const char* densepath_lacking() {
  static const std::string names = densepath::lacking();
  return names.c_str();
}
