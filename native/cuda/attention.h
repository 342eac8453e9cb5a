// What the passes of attention share: their operands and how these are checked.
#pragma once
#include <cstdint>
#include <type_traits>

#include "contract.h"
#include "cuda/elements.h"
#include "cuda/vectors.h"
#include "shared/attention_checks.h"

namespace adjoint::cuda {

constexpr bool isHalf(DType d) {
  return d == DType::bfloat16 || d == DType::float16;
}

// A tensor [B, H, rows, columns] with its strides.
template <class S>
struct Heads {
  S* data;
  int64_t batch, head, row, column;
  bool isVector;  // four neighbouring columns may move as one
  bool isWide;    // or 16 bytes of them, of which there is a whole number

  ADJOINT_DEVICE S* at(int b, int h) const { return data + b * batch + h * head; }
};

template <class S>
Heads<S> headsOf(const View& x) {
  int64_t stride[4];
  // Where there is one place alone, a stride says nothing.
  for (int axis = 0; axis < 4; axis++) stride[axis] = x.size[axis] > 1 ? x.stride[axis] : 0;
  const bool isDense = x.size[3] <= 1 || stride[3] == 1;
  const int64_t steps = stride[0] | stride[1] | stride[2],
                wide = 16 / static_cast<int64_t>(itemSize(x.dtype));
  const bool isVector = isDense && isVectorAligned(x.data, x.dtype) && steps % kVector == 0;
  const bool isWide = isDense && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
                      steps % wide == 0 && x.size[3] % wide == 0;
  return {x.as<S>(), stride[0], stride[1], stride[2], x.stride[3], isVector, isWide};
}

// Mask [B, H, Tq, Tk], data nullptr for none.
struct AttentionMask {
  const void* data = nullptr;
  bool isBoolean = false;
  int64_t batch = 0, head = 0, row = 0, column = 0;

  AttentionMask() = default;
  explicit AttentionMask(const View* mask) {
    if (!mask) return;
    data = mask->data;
    isBoolean = mask->dtype == DType::boolean;
    batch = mask->stride[0];
    head = mask->stride[1];
    row = mask->stride[2];
    column = mask->stride[3];
  }
};

// Sizes of axes, and numbers of heads and of blocks.
constexpr int kMaxAttentionSize = 0x7fffff00;

struct AttentionSizes {
  int batch, heads, tq, tk, d, e;
  ADJOINT_HD int count() const { return batch * heads; }
};

// Checks the inputs of `name`.
class AttentionInputs : public AttentionChecks {
 public:
  AttentionInputs(const char* name, const View& q, const View& k, const View& v, const View* mask);
  const AttentionSizes& sizes() const { return sizes_; }

 private:
  AttentionSizes sizes_{};
};

// The seam to fused attention, of half types and without a mask: attention_cudnn.cpp calls NVIDIA's
// library, native/emulation/attention_library_host.cpp has none. They queue the work, or give back
// false where the library is not there or does not take it. lse is dense. A gradient that need not
// be deterministic may be summed in an order that changes.
bool attentionByLibrary(const View& y, const View& lse, const View& q, const View& k, const View& v,
                        double scale, bool isCausal);
bool attentionBackwardByLibrary(const backend::AttentionBackwardArgs& a, const View& lse,
                                bool isDeterministic);

}  // namespace adjoint::cuda
