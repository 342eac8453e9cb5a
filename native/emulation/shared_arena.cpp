#include "emulation/shared_arena.h"

#include <cstring>

#include "shared/poison.h"

namespace adjoint::emulation {
namespace {

constexpr size_t kArenaBytes = 128 << 10;
constexpr size_t kZoneBytes = 64;
constexpr unsigned char kZoneByte = 0xa5;
constexpr int kNanByte = 0xff;  // a NaN in every floating type, -1 in every integer

size_t roundUp(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace

SharedArena::SharedArena() : memory_(kArenaBytes, kNanByte) {}

// Under AddressSanitizer a touched red zone is reported at its line; otherwise a write to it is
// found at the end of the block.
void SharedArena::addRedZone(const char* neighbour) {
  redZones_.push_back({used_, neighbour});
  std::memset(&memory_[used_], kZoneByte, kZoneBytes);
  poison(&memory_[used_], kZoneBytes);
  used_ += kZoneBytes;
}

void SharedArena::startBlock(size_t dynamicBytes, size_t limit) {
  std::memset(memory_.data(), kNanByte, used_);
  used_ = payload_ = 0;
  limit_ = limit;
  redZones_.clear();
  dynamic_ = nullptr;
  if (dynamicBytes > 0) dynamic_ = take("of dynamic size", dynamicBytes, 16);
}

void* SharedArena::take(const char* name, size_t bytes, size_t alignment) {
  payload_ = roundUp(payload_, alignment) + bytes;
  if (payload_ > limit_) return nullptr;
  if (redZones_.empty()) addRedZone(name);
  used_ = roundUp(used_, alignment < 16 ? 16 : alignment);
  void* address = &memory_[used_];
  used_ += bytes;
  addRedZone(name);
  return address;
}

const char* SharedArena::endBlock() {
  unpoison(memory_.data(), used_);
  for (const RedZone& zone : redZones_) {
    for (size_t i = 0; i < kZoneBytes; i++) {
      if (memory_[zone.offset + i] != kZoneByte) return zone.neighbour;
    }
  }
  return nullptr;
}

}  // namespace adjoint::emulation
