// Host memory that a device reads by itself, as the addon of that device lends it to the CPU's: for
// tensors of the CPU that are copied to the device often. Nothing here throws.
#pragma once
#include <cstddef>

namespace adjoint {

struct PinnedMemory {
  // nullptr where there is none to be had.
  void* (*allocate)(size_t bytes);
  // Queued copies may still read the block: it is not used again before they have.
  void (*release)(void* block);
  // Waits until no queued copy reads the block.
  void (*wait)(void* block);
};

}  // namespace adjoint
