// Sums over rows that arrive in pieces, with the error so far (kernels/reduce.h).
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/kernels/reduce.h"
#include "shared/dtype.h"

namespace adjoint::cpu {

template <class T>
constexpr Compute kComputeOf = std::is_same<T, float>::value ? Compute::f32 : Compute::f64;

template <class T>
class RowSums {
 public:
  explicit RowSums(int64_t rows) : value_(rows), low_(rows) {}

  void add(int64_t row, const T* x, int64_t n) { fold_->row(&value_[row], &low_[row], x, n); }
  void merge(const RowSums& other) {
    fold_->merge(value_.data(), low_.data(), other.value_.data(), other.low_.data(),
                 static_cast<int64_t>(value_.size()));
  }
  void write(T* sums) const {
    for (size_t i = 0; i < value_.size(); i++) {
      // Where the sum is infinite the error is NaN.
      sums[i] = static_cast<T>(value_[i] + (std::isfinite(low_[i]) ? low_[i] : 0));
    }
  }

 private:
  std::vector<double> value_, low_;
  const FoldKernel* fold_ =
      &reduceTable().fold[static_cast<int>(Fold::sum)][static_cast<int>(kComputeOf<T>)];
};

}  // namespace adjoint::cpu
