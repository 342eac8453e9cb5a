// Reading and adding by index. Elements are moved by their size, whatever they mean; sums are in
// the order of the index, so they do not depend on the number of threads.
#include <cstring>

#include "contract.h"
#include "cpu/pool.h"
#include "shared/convert.h"

namespace adjoint::backend {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements of a chunk

// The axes of a view before, at and after `axis`, walked as (outer, position, inner).
struct Split {
  int64_t outer = 1, inner = 1;
};

Split splitAt(const View& v, int axis) {
  Split s;
  for (int i = 0; i < axis; i++) s.outer *= v.size[i];
  for (int i = axis + 1; i < v.ndim; i++) s.inner *= v.size[i];
  return s;
}

// The offset of element `index` of the axes [begin, end) in row-major order.
int64_t offsetOf(const View& v, int begin, int end, int64_t index) {
  int64_t offset = 0;
  for (int i = end - 1; i >= begin; i--) {
    offset += (index % v.size[i]) * v.stride[i];
    index /= v.size[i];
  }
  return offset;
}

// Whether the axes [begin, end) are row-major with `unit` as the stride of the last.
bool isDense(const View& v, int begin, int end) {
  int64_t expected = 1;
  for (int i = end - 1; i >= begin; i--) {
    if (v.size[i] != 1 && v.stride[i] != expected) return false;
    expected *= v.size[i];
  }
  return true;
}

int64_t checked(const char* op, int64_t index, int64_t size) {
  if (index < 0 || index >= size) {
    fail(ErrorKind::index, "%s: expected indices from 0 to %lld, got %lld", op,
         static_cast<long long>(size - 1), static_cast<long long>(index));
  }
  return index;
}

// Calls f(TypeTag<U>) with an unsigned type of the element's size.
template <class F>
void visitSize(DType dtype, F&& f) {
  switch (itemSize(dtype)) {
    case 1:
      return f(TypeTag<uint8_t>());
    case 2:
      return f(TypeTag<uint16_t>());
    case 4:
      return f(TypeTag<uint32_t>());
    default:
      return f(TypeTag<uint64_t>());
  }
}

int64_t rowsPerChunk(int64_t elements) {
  const int64_t rows = kGrain / (elements > 0 ? elements : 1);
  return rows > 0 ? rows : 1;
}

// a + b in the type that sums of Stored are computed in
template <class Stored>
Stored plus(Stored a, Stored b) {
  if constexpr (std::is_same_v<Stored, float> || std::is_same_v<Stored, double>) {
    return a + b;
  } else if constexpr (std::is_integral_v<Stored>) {
    return static_cast<Stored>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  } else if constexpr (std::is_same_v<Stored, Boolean>) {
    return {static_cast<uint8_t>(a.value != 0 || b.value != 0)};
  } else {
    return convert<Stored>(toFloat(a) + toFloat(b));
  }
}

}  // namespace

void gather(const View& y, const View& x, const View& index, int axis) {
  if (y.numel() == 0) return;
  const Split s = splitAt(y, axis);
  const int64_t length = y.size[axis];
  visitSize(y.dtype, [&](auto tag) {
    using U = typename decltype(tag)::type;
    cpu::parallelFor(s.outer, rowsPerChunk(length * s.inner), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) {
        U* yo = y.as<U>() + offsetOf(y, 0, axis, o);
        const U* xo = x.as<U>() + offsetOf(x, 0, axis, o);
        const int64_t* io = index.as<int64_t>() + offsetOf(index, 0, axis, o);
        for (int64_t i = 0; i < s.inner; i++) {
          const int64_t yi = offsetOf(y, axis + 1, y.ndim, i);
          const int64_t xi = offsetOf(x, axis + 1, x.ndim, i);
          const int64_t ii = offsetOf(index, axis + 1, index.ndim, i);
          for (int64_t k = 0; k < length; k++) {
            const int64_t at = checked("gather", io[k * index.stride[axis] + ii], x.size[axis]);
            yo[k * y.stride[axis] + yi] = xo[at * x.stride[axis] + xi];
          }
        }
      }
    });
  });
}

void scatterAdd(const View& y, const View& index, const View& source, int axis) {
  if (source.numel() == 0) return;
  const Split s = splitAt(source, axis);
  const int64_t length = source.size[axis];
  visitDType(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    // Rows of different outer positions share no element.
    cpu::parallelFor(s.outer, rowsPerChunk(length * s.inner), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) {
        T* yo = y.as<T>() + offsetOf(y, 0, axis, o);
        const T* so = source.as<T>() + offsetOf(source, 0, axis, o);
        const int64_t* io = index.as<int64_t>() + offsetOf(index, 0, axis, o);
        for (int64_t i = 0; i < s.inner; i++) {
          const int64_t yi = offsetOf(y, axis + 1, y.ndim, i);
          const int64_t si = offsetOf(source, axis + 1, source.ndim, i);
          const int64_t ii = offsetOf(index, axis + 1, index.ndim, i);
          for (int64_t k = 0; k < length; k++) {
            const int64_t at = checked("scatterAdd", io[k * index.stride[axis] + ii], y.size[axis]);
            T& sum = yo[at * y.stride[axis] + yi];
            sum = plus(sum, so[k * source.stride[axis] + si]);
          }
        }
      }
    });
  });
}

void indexSelect(const View& y, const View& x, const View& index, int axis) {
  if (y.numel() == 0) return;
  const Split s = splitAt(y, axis);
  const int64_t length = y.size[axis];
  for (int64_t k = 0; k < length; k++) {
    checked("indexSelect", index.as<int64_t>()[k * index.stride[0]], x.size[axis]);
  }
  const bool dense = isDense(x, axis + 1, x.ndim) && isDense(y, axis + 1, y.ndim);
  visitSize(y.dtype, [&](auto tag) {
    using U = typename decltype(tag)::type;
    cpu::parallelFor(s.outer * length, rowsPerChunk(s.inner), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t o = row / length, k = row % length;
        const int64_t at = index.as<int64_t>()[k * index.stride[0]];
        U* to = y.as<U>() + offsetOf(y, 0, axis, o) + k * y.stride[axis];
        const U* from = x.as<U>() + offsetOf(x, 0, axis, o) + at * x.stride[axis];
        if (dense) {
          std::memcpy(to, from, static_cast<size_t>(s.inner) * sizeof(U));
          continue;
        }
        for (int64_t i = 0; i < s.inner; i++) {
          to[offsetOf(y, axis + 1, y.ndim, i)] = from[offsetOf(x, axis + 1, x.ndim, i)];
        }
      }
    });
  });
}

void indexAdd(const View& y, const View& index, const View& source, int axis) {
  if (source.numel() == 0) return;
  const Split s = splitAt(source, axis);
  const int64_t length = source.size[axis];
  for (int64_t k = 0; k < length; k++) {
    checked("indexAdd", index.as<int64_t>()[k * index.stride[0]], y.size[axis]);
  }
  const bool dense = isDense(y, axis + 1, y.ndim) && isDense(source, axis + 1, source.ndim);
  visitDType(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto addRows = [&](int64_t o, int64_t begin, int64_t end) {
      for (int64_t k = 0; k < length; k++) {
        const int64_t at = index.as<int64_t>()[k * index.stride[0]];
        T* to = y.as<T>() + offsetOf(y, 0, axis, o) + at * y.stride[axis];
        const T* from = source.as<T>() + offsetOf(source, 0, axis, o) + k * source.stride[axis];
        for (int64_t i = begin; i < end; i++) {
          T& sum = to[dense ? i : offsetOf(y, axis + 1, y.ndim, i)];
          sum = plus(sum, from[dense ? i : offsetOf(source, axis + 1, source.ndim, i)]);
        }
      }
    };
    // Split by what is not indexed: every element then has one thread, which adds in order.
    for (int64_t o = 0; o < s.outer; o++) {
      cpu::parallelFor(s.inner, rowsPerChunk(length),
                       [&](int64_t begin, int64_t end) { addRows(o, begin, end); });
    }
  });
}

void accumulateOverlapping(const View& y, const View& x) {
  const int64_t n = x.numel();
  visitDType(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < n; i++) {
      T& sum = y.as<T>()[offsetOf(y, 0, y.ndim, i)];
      sum = plus(sum, x.as<T>()[offsetOf(x, 0, x.ndim, i)]);
    }
  });
}

}  // namespace adjoint::backend
