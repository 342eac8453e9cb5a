// The element types of a tensor and what each is stored and computed as.
#pragma once
#include <cstddef>
#include <cstdint>

namespace adjoint {

// Codes are shared with TypeScript (src/core/dtype.ts) and are part of the file format of
// checkpoints: never renumber. 10..14 are reserved for types that files may hold.
enum class DType : uint8_t {
  float32 = 0,
  float64 = 1,
  bfloat16 = 2,
  float16 = 3,
  int64 = 4,
  int32 = 5,
  int16 = 6,
  int8 = 7,
  uint8 = 8,
  boolean = 9,
  uint16 = 10,
  uint32 = 11,
  uint64 = 12,
  complex64 = 13,
  complex128 = 14,
};

constexpr int kDTypeCount = 10;  // those that tensors may have today

constexpr size_t itemSize(DType d) {
  switch (d) {
    case DType::float64:
    case DType::int64:
    case DType::uint64:
    case DType::complex64:
      return 8;
    case DType::float32:
    case DType::int32:
    case DType::uint32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
    case DType::int16:
    case DType::uint16:
      return 2;
    case DType::complex128:
      return 16;
    case DType::int8:
    case DType::uint8:
    case DType::boolean:
      return 1;
  }
  return 0;
}

constexpr bool isFloating(DType d) {
  return d == DType::float32 || d == DType::float64 || d == DType::bfloat16 || d == DType::float16;
}

// What a kernel computes in: integers and bool in int64 (stored with wrap-around), half types in
// float32. So a family of operations needs three instances, not ten.
enum class Compute : uint8_t { f32, f64, i64 };

constexpr Compute computeType(DType d) {
  return d == DType::float64 ? Compute::f64 : isFloating(d) ? Compute::f32 : Compute::i64;
}

// The same as a dtype of tensors.
constexpr DType computeDType(DType d) {
  return computeType(d) == Compute::f32   ? DType::float32
         : computeType(d) == Compute::f64 ? DType::float64
                                          : DType::int64;
}

constexpr const char* dtypeName(DType d) {
  constexpr const char* names[] = {"float32", "float64", "bfloat16", "float16",   "int64",
                                   "int32",   "int16",   "int8",     "uint8",     "bool",
                                   "uint16",  "uint32",  "uint64",   "complex64", "complex128"};
  return static_cast<int>(d) < 15 ? names[static_cast<int>(d)] : "?";
}

}  // namespace adjoint
