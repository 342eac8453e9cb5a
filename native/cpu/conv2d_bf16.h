// Convolutions of bfloat16 images and their gradients as bfloat16 products, where the processor has
// them: on AVX512-BF16 in pairs (cpu/conv2d_pairs.h), on AMX in tiles (cpu/gemm_bf16.h).
//
// In tiles, each task copies the part of the image that it needs into a slab, with zeros around,
// and there the pixels that one tap sees lie side by side: over a stride, the slab is cut into
// planes by the remainder of the position. Rows of the output are as long as rows of the slab; what
// is computed beyond their end is dropped. So a tile of columns is packed from rows that start at
// the taps' offsets.
#pragma once
#include "cpu/conv2d.h"
#include "cpu/kernels/gemm_bf16.h"

namespace adjoint::cpu {

// Whether images of a dtype and filters of w's shape have a form in bfloat16 and gain by it: groups
// of few channels leave its tiles nearly empty.
bool hasBf16Convolution(DType images, const View& w, const backend::Conv2dShape& shape);

// All of bfloat16, bias included. w has any strides.
void convolveBf16(const View& y, const View& x, const View& w, const View* bias,
                  const backend::Conv2dShape& shape);
// The gradient of the input; false where there is no form for it.
bool convolveBf16Input(const View& dx, const View& dy, const View& w,
                       const backend::Conv2dShape& shape);
// Where x has an infinity or a NaN, all of the gradient of its channel may become NaN.
void convolveBf16Weight(const View& dw, const View& dy, const View& x,
                        const backend::Conv2dShape& shape);

// The same in tiles, by whichever product; dw is float32 and dense. The gradient of the input is
// false where it is no convolution of stride 1 (strides, or more padding than taps).
void convolveTiles(const View& y, const View& x, const View& w, const View* bias,
                   const backend::Conv2dShape& shape, Bf16Multiply multiply);
bool convolveTilesInput(const View& dx, const View& dy, const View& w,
                        const backend::Conv2dShape& shape, Bf16Multiply multiply);
void convolveTilesWeight(const View& dw, const View& dy, const View& x,
                         const backend::Conv2dShape& shape, Bf16Multiply multiply);

}  // namespace adjoint::cpu
