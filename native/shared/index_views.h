// The views that reading and adding at indices walk over together, and their checks.
#pragma once
#include <cstdint>

#include "shared/error.h"
#include "shared/view.h"

namespace adjoint {

// Calls f(unsigned integer of the element's size).
template <class F>
void visitSize(DType dtype, const F& f) {
  switch (itemSize(dtype)) {
    case 1:
      return f(uint8_t());
    case 2:
      return f(uint16_t());
    case 4:
      return f(uint32_t());
    default:
      return f(uint64_t());
  }
}

inline void checkIndexType(const char* op, const View& index) {
  if (index.dtype != DType::int64) {
    fail(ErrorKind::dtype, "%s: expected int64 indices, got %s", op, dtypeName(index.dtype));
  }
}

inline void checkIndexedTypes(const char* op, const View& a, const View& b, const View& index) {
  checkIndexType(op, index);
  if (a.dtype != b.dtype) {
    fail(ErrorKind::dtype, "%s: expected one dtype, got %s and %s", op, dtypeName(a.dtype),
         dtypeName(b.dtype));
  }
}

// `v` cut to the shape of `index`, with stride 0 along `axis` where the index will be added.
inline View alongIndex(const char* op, const View& v, const View& index, int axis, bool indexed) {
  View out = v;
  if (v.ndim != index.ndim) {
    fail(ErrorKind::shape, "%s: expected %d axes, got %d", op, v.ndim, index.ndim);
  }
  for (int i = 0; i < v.ndim; i++) {
    if (i == axis && indexed) {
      out.stride[i] = 0;
    } else if (v.size[i] < index.size[i]) {
      fail(ErrorKind::shape, "%s: expected at most %lld indices along axis %d, got %lld", op,
           static_cast<long long>(v.size[i]), i, static_cast<long long>(index.size[i]));
    }
    out.size[i] = index.size[i];
  }
  return out;
}

// index [n] as a view of `shape` that varies along `axis` alone.
inline View expandIndex(const View& index, const View& shape, int axis) {
  View out = index;
  out.ndim = shape.ndim;
  for (int i = 0; i < shape.ndim; i++) {
    out.size[i] = i == axis ? index.numel() : shape.size[i];
    out.stride[i] = i == axis && index.ndim > 0 ? index.stride[0] : 0;
  }
  return out;
}

}  // namespace adjoint
