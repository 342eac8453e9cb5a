// A vector whose first N elements need no heap and whose elements never move: a call rarely has
// more than a few operands, and hands out references to them.
#pragma once
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace adjoint {

template <class T, size_t N>
class StableVector {
 public:
  StableVector() = default;
  StableVector(const StableVector&) = delete;
  StableVector& operator=(const StableVector&) = delete;
  ~StableVector() {
    for (size_t i = 0; i < size_ && i < N; i++) inlineAt(i)->~T();
  }

  // Default-initialised: what T leaves without a value has none.
  T& push() {
    size_t i = size_;
    if (i >= N) more_.emplace_back(new T);
    T& made = i < N ? *new (inline_ + i * sizeof(T)) T : *more_.back();
    size_++;
    return made;
  }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return i < N ? *inlineAt(i) : *more_[i - N]; }

 private:
  T* inlineAt(size_t i) { return std::launder(reinterpret_cast<T*>(inline_ + i * sizeof(T))); }

  alignas(T) unsigned char inline_[sizeof(T) * N];
  size_t size_ = 0;
  std::vector<std::unique_ptr<T>> more_;
};

}  // namespace adjoint
