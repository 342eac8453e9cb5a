// A vector whose first N elements need no heap: a call rarely has more than a few operands.
#pragma once
#include <cstddef>
#include <new>
#include <utility>

namespace adjoint {

template <class T, size_t N>
class InlineVector {
 public:
  InlineVector() : data_(reinterpret_cast<T*>(inline_)) {}
  InlineVector(const InlineVector&) = delete;
  InlineVector& operator=(const InlineVector&) = delete;
  ~InlineVector() {
    for (size_t i = 0; i < size_; i++) data_[i].~T();
    if (!isInline()) ::operator delete(data_);
  }

  // Invalidates references once the inline room is used up.
  void push(T&& value) {
    if (size_ == capacity_) grow();
    new (data_ + size_) T(std::move(value));
    size_++;
  }
  size_t size() const { return size_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  bool isInline() const { return data_ == reinterpret_cast<const T*>(inline_); }
  void grow() {
    T* larger = static_cast<T*>(::operator new(sizeof(T) * capacity_ * 2));
    for (size_t i = 0; i < size_; i++) {
      new (larger + i) T(std::move(data_[i]));
      data_[i].~T();
    }
    if (!isInline()) ::operator delete(data_);
    data_ = larger;
    capacity_ *= 2;
  }

  alignas(T) unsigned char inline_[sizeof(T) * N];
  T* data_;
  size_t size_ = 0, capacity_ = N;
};

}  // namespace adjoint
