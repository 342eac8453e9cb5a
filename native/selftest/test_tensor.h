// A tensor for the self-tests: any dtype and layout, read and written as doubles.
#pragma once
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/pool.h"
#include "cpu/simd.h"
#include "levels.h"
#include "shared/convert.h"
#include "shared/view.h"

namespace adjoint {

class TestTensor {
 public:
  // `order` lists the axes from the outermost in memory to the innermost; `gap` widens the rows.
  TestTensor(DType dtype, std::vector<int64_t> shape, std::vector<int> order = {},
             int64_t gap = 0) {
    view_.dtype = dtype;
    view_.ndim = static_cast<int>(shape.size());
    if (order.empty()) {
      order.resize(shape.size());
      std::iota(order.begin(), order.end(), 0);
    }
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0;) {
      view_.size[order[i]] = shape[order[i]];
      view_.stride[order[i]] = stride;
      stride *= shape[order[i]] + (i + 1 == shape.size() ? gap : 0);
    }
    // Exactly as many bytes as the view spans, so that a sanitizer sees every access beyond it.
    int64_t last = 0;
    for (int i = 0; i < view_.ndim; i++) last += (view_.size[i] - 1) * view_.stride[i];
    bytes_.assign(numel() == 0 ? 0 : (last + 1) * itemSize(dtype), 0x7f);
    view_.data = bytes_.data();
  }
  TestTensor(const TestTensor&) = delete;
  TestTensor& operator=(const TestTensor&) = delete;

  const View& view() const { return view_; }
  int64_t numel() const { return view_.numel(); }
  int64_t size(int axis) const { return view_.size[axis]; }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

  // Repeats axis `axis` (of size 1) `count` times by stride 0.
  View expanded(int axis, int64_t count) const {
    View v = view_;
    v.size[axis] = count;
    v.stride[axis] = 0;
    return v;
  }

  // Element i in row-major order.
  double get(int64_t i) const {
    double value = 0;
    visitDType(view_.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      value = convert<double>(reinterpret_cast<const T*>(bytes_.data())[offset(i)]);
    });
    return value;
  }
  void set(int64_t i, double value) {
    visitDType(view_.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      reinterpret_cast<T*>(bytes_.data())[offset(i)] = convert<T>(value);
    });
  }
  double at(std::initializer_list<int64_t> index) const { return get(flat(index)); }

  std::vector<double> values() const {
    std::vector<double> all(numel());
    for (int64_t i = 0; i < numel(); i++) all[i] = get(i);
    return all;
  }

  TestTensor& fill(double value) {
    for (int64_t i = 0; i < numel(); i++) set(i, value);
    return *this;
  }
  // Uniform in [-1, 1), or small integers.
  TestTensor& randomize(unsigned seed) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<double> real(-1, 1);
    std::uniform_int_distribution<int> integer(-9, 9);
    for (int64_t i = 0; i < numel(); i++) {
      set(i, isFloating(view_.dtype) ? real(engine) : integer(engine));
    }
    return *this;
  }

 private:
  int64_t offset(int64_t i) const {
    int64_t at = 0;
    for (int d = view_.ndim - 1; d >= 0; d--) {
      at += i % view_.size[d] * view_.stride[d];
      i /= view_.size[d];
    }
    return at;
  }
  int64_t flat(std::initializer_list<int64_t> index) const {
    int64_t at = 0;
    int d = 0;
    for (int64_t i : index) at = at * view_.size[d++] + i;
    return at;
  }

  View view_;
  std::vector<unsigned char> bytes_;
};

// Runs `body` at every SIMD level that this processor has, and restores the level.
template <class F>
void forEachSimdLevel(F body) {
  using namespace cpu;
  const SimdLevel before = simdLevel();
  for (SimdLevel level : levelsUnderTest()) {
    setSimdLevel(level);
    body(simdLevelName(level));
  }
  setSimdLevel(before);
}

// Runs `body` with one thread and with `n`.
template <class F>
void withThreads(int n, F body) {
  const int before = cpu::poolThreads();
  cpu::setPoolThreads(n);
  body();
  cpu::setPoolThreads(before);
}

}  // namespace adjoint
