// What each device has of its own: memory, handles, plans, buffers.
#pragma once
#include <atomic>
#include <mutex>

#include "contract.h"

namespace adjoint::cuda {

constexpr int kMostDevices = 64;

// The device that this thread's calls are about (backend::useDevice; device.cpp).
int currentDevice();

// Turns to another device while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device) : before_(currentDevice()) { backend::useDevice(device); }
  // Turning back can fail only where the device has failed, which the next call says.
  ~DeviceScope() {
    try {
      backend::useDevice(before_);
    } catch (const Error&) {
    }
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  const int before_;
};

// One T for each device, made when it is first asked for there and never destroyed: at exit the
// driver may be gone before static objects are.
template <class T>
class PerDevice {
 public:
  // The current device's.
  T& get() {
    std::atomic<T*>& place = made_[currentDevice()];
    if (T* one = place.load(std::memory_order_acquire)) return *one;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!place.load(std::memory_order_relaxed)) place.store(new T, std::memory_order_release);
    return *place.load(std::memory_order_relaxed);
  }

 private:
  std::mutex mutex_;
  std::atomic<T*> made_[kMostDevices] = {};
};

}  // namespace adjoint::cuda
