// What this processor has of what kernels need. `processor.cpp` is compiled for any processor.
#pragma once

#include <string>

namespace densepath {

// What the kernels were compiled for: names, the last null. `needs.hpp`, in the kernels' own file.
extern const char* const NEEDS[];

// Those of `NEEDS` that this processor, or its system, lacks: "avx2, fma"; empty if it has all.
// Where the system does not say, it has all.
std::string lacking();

// Whether the processor has x86's VNNI, of either length: products of bytes with exact sums.
bool has_vnni();

// The processor in its maker's words; where they are not known, its architecture.
std::string processor_name();

// The best -march that this processor can run and every compiler knows: "x86-64-v2", "armv8-a".
std::string processor_level();

}  // namespace densepath
