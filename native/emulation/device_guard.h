// Whose memory may be touched: that of the device whose work runs. A card cannot read another one's
// memory; here all of it is the host's, so pages of other devices are taken away meanwhile. Only
// where more than one device is emulated, and on Linux.
#pragma once
#include <cstddef>

namespace adjoint::emulation {

// Aligned to pages, and a whole number of them.
void* allocateGuarded(size_t bytes, int device);
// False where the block is not one of allocateGuarded's.
bool freeGuarded(void* block);

// From now on work of this device runs.
void enterDevice(int device);
// What runs may touch the memory of all: a copy from one to another.
void enterAllDevices();

}  // namespace adjoint::emulation
