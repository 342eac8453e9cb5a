// The shared memory of one block: arrays between red zones, filled with NaN bits at the start.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace adjoint::emulation {

class SharedArena {
 public:
  SharedArena();
  // Takes back all arrays; what they held reads as NaN from now on.
  void startBlock(size_t dynamicBytes, size_t limit);
  // nullptr where more than the limit would be needed.
  void* take(const char* name, size_t bytes, size_t alignment);
  void* dynamic() const { return dynamic_; }
  bool contains(const void* p) const {
    const auto* byte = static_cast<const unsigned char*>(p);
    return byte >= memory_.data() && byte < memory_.data() + memory_.size();
  }
  // The name of an array next to which a red zone was written, or nullptr.
  const char* endBlock();

 private:
  void addRedZone(const char* neighbour);

  struct RedZone {
    size_t offset;
    const char* neighbour;
  };
  std::vector<unsigned char> memory_;
  size_t used_ = 0;     // red zones included
  size_t payload_ = 0;  // without them: what counts against the limit
  size_t limit_ = 0;
  std::vector<RedZone> redZones_;
  void* dynamic_ = nullptr;
};

}  // namespace adjoint::emulation
