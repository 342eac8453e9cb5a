// The elementwise part of one step of a recurrent layer, for some rows of the batch. Arrays are
// [rows, size] without gaps, gates [rows, 4, size]; native/cpu/recurrent.cpp does the products.
// T is what is computed in, S what the layer's inputs and outputs are stored as: T, or bfloat16.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/convert.h"

namespace adjoint::cpu {

constexpr int64_t kSumsBlock = 32;  // a multiple of every level's lanes

// What a product with the state gave, in blocks of kSumsBlock units, which may be padded: of gate
// b, row r and unit u at at + b gate + u / 32 block + r row + u % 32. nullptr: zeros.
template <class T>
struct StateSums {
  const T* at = nullptr;
  int64_t gate = 0, block = 0, row = 0;
};

// Where a product with the state wants its rows, beside where they go anyway: gate b of row r at
// at + r row + b gate. nullptr: nowhere.
template <class S>
struct StateRows {
  S* at = nullptr;
  int64_t row = 0, gate = 0;
};

// Gates i, f, g, o come as what x adds to them and become activations: with the state's sums added,
// c = sigmoid(f) cPrevious + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c)
template <class T, class S>
struct LstmStep {
  int64_t rows, size;
  T* gates;
  StateSums<T> sums;
  const T* cPrevious;  // nullptr: zeros
  T* c;
  S* h;
  StateRows<S> state;  // of h
};

// dy may be nullptr for none; its rows are dyRow apart. dh and dc are the gradients that the step
// after sent: dc becomes that of cPrevious, dgates that of the sums before the activations, whose
// sums over the rows are added to dbias [4, size].
template <class T, class S>
struct LstmStepBackward {
  int64_t rows, size;
  const T *gates, *cPrevious, *c;
  const S* dy;
  int64_t dyRow;
  StateSums<T> dh;
  T* dc;
  S* dgates;
  StateRows<S> state;  // of dgates
  T* dbias;
};

// Gates n, r, z come as what x adds to them and become activations, m is made: the state's sums are
// of r, z and m. m = sum + bias; n = tanh(n + sigmoid(r) m); h = (1 - z) n + z hPrevious
template <class T, class S>
struct GruStep {
  int64_t rows, size;
  T* gates;
  StateSums<T> sums;
  const T* bias;       // of m, nullptr for none
  const S* hPrevious;  // nullptr: zeros
  S* h;
  StateRows<S> state;  // of h
};

// As above; what the step after sent is dh and dhDirect, which becomes the part of hPrevious'
// gradient that does not pass through the gates.
template <class T, class S>
struct GruStepBackward {
  int64_t rows, size;
  const T* gates;
  const S *hPrevious, *dy;
  int64_t dyRow;
  StateSums<T> dh;
  T* dhDirect;
  S* dgates;
  StateRows<S> state;  // of the gradients of r, z and m
  T* dbias;
};

template <class T, class S>
struct RecurrentKernels {
  void (*lstm)(const LstmStep<T, S>& step);
  void (*lstmBackward)(const LstmStepBackward<T, S>& step);
  void (*gru)(const GruStep<T, S>& step);
  void (*gruBackward)(const GruStepBackward<T, S>& step);
};

struct RecurrentTable {
  RecurrentKernels<float, float> f32;
  RecurrentKernels<double, double> f64;
  RecurrentKernels<float, BFloat16> bf16;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(RecurrentTable, recurrentTable)
