// The elementwise part of one step of a recurrent layer, for some rows of the batch. Arrays are
// [rows, size] without gaps, gates [rows, 4, size]; native/cpu/recurrent.cpp does the products.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

// Gates i, f, g, o come as sums of products and become activations:
// c = sigmoid(f) cPrevious + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c)
template <class T>
struct LstmStep {
  int64_t rows, size;
  T* gates;
  const T* cPrevious;  // nullptr: zeros
  T *c, *h;
};

// dy may be nullptr for none; its rows are dyRow apart. dh and dc are the gradients that the step
// after sent: dc becomes that of cPrevious, dgates that of the sums before the activations.
template <class T>
struct LstmStepBackward {
  int64_t rows, size;
  const T *gates, *cPrevious, *c, *dy;
  int64_t dyRow;
  const T* dh;
  T *dc, *dgates;
};

// Gates n, r, z, m; the first three come as sums of products and become activations, m stays:
// n = tanh(n + sigmoid(r) m); h = (1 - z) n + z hPrevious
template <class T>
struct GruStep {
  int64_t rows, size;
  T* gates;
  const T* hPrevious;  // nullptr: zeros
  T* h;
};

// As above; dh becomes the part of hPrevious' gradient that does not pass through the gates.
template <class T>
struct GruStepBackward {
  int64_t rows, size;
  const T *gates, *hPrevious, *dy;
  int64_t dyRow;
  T *dh, *dgates;
};

template <class T>
struct RecurrentKernels {
  void (*lstm)(const LstmStep<T>& step);
  void (*lstmBackward)(const LstmStepBackward<T>& step);
  void (*gru)(const GruStep<T>& step);
  void (*gruBackward)(const GruStepBackward<T>& step);
};

struct RecurrentTable {
  RecurrentKernels<float> f32;
  RecurrentKernels<double> f64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(RecurrentTable, recurrentTable)
