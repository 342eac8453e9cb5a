// Streams or events that are kept for their next user, as making one takes longer than using it.
#pragma once
#include <mutex>
#include <vector>

namespace adjoint::cuda {

template <class T>
class FreeList {
 public:
  // A kept one, or what make() gives.
  template <class Make>
  T take(const Make& make) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        const T one = free_.back();
        free_.pop_back();
        return one;
      }
    }
    return make();
  }
  void give(T one) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(one);
  }

 private:
  std::mutex mutex_;
  std::vector<T> free_;
};

}  // namespace adjoint::cuda
