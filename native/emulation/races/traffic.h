// How many bytes of device memory the threads of kernels ask for, counted by the hooks of
// races.cpp.
#pragma once
#include <cstdint>
#include <vector>

namespace adjoint::emulation {

struct MemoryRange {
  const char *begin, *end;
  uint64_t read = 0, written = 0;
};

// From now on accesses are counted in the first of the ranges that holds them, or in the last one,
// which stands for all other device memory. nullptr: no more.
void countTraffic(std::vector<MemoryRange>* ranges);

}  // namespace adjoint::emulation
