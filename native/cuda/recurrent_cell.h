// The elementwise part of one step of a recurrent layer: arrays are [N, H] without gaps, gates
// [N, 4, H]; recurrent.cu does the products. C is what is computed in, S what the layer's inputs
// and outputs are stored as. run<V>(row, unit, size) computes V neighbouring units.
#pragma once
#include "cuda/elements.h"
#include "cuda/walk.h"
#include "shared/functors.h"

namespace adjoint::cuda {

constexpr int kCellThreads = 128;

template <int V, class C, class S>
ADJOINT_DEVICE void loadUnits(const S* p, C (&x)[V]) {
  if constexpr (V == kVector) {
    const Pack<S> pack = *reinterpret_cast<const Pack<S>*>(p);
    for (int j = 0; j < V; j++) x[j] = convert<C>(pack.value[j]);
  } else {
    static_assert(V == 1, "units move alone or as a Pack");
    x[0] = convert<C>(*p);
  }
}
// nullptr: zeros
template <int V, class C, class S>
ADJOINT_DEVICE void loadUnitsOrZeros(const S* p, int64_t at, C (&x)[V]) {
  if (p) {
    loadUnits(p + at, x);
  } else {
    for (int j = 0; j < V; j++) x[j] = C(0);
  }
}
template <int V, class C, class S>
ADJOINT_DEVICE void storeUnits(S* p, const C (&x)[V]) {
  if constexpr (V == kVector) {
    Pack<S> pack;
    for (int j = 0; j < V; j++) pack.value[j] = convert<S>(x[j]);
    *reinterpret_cast<Pack<S>*>(p) = pack;
  } else {
    *p = convert<S>(x[0]);
  }
}

// Gates i, f, g, o come as sums and become activations:
// c = sigmoid(f) cBefore + sigmoid(i) tanh(g); y = sigmoid(o) tanh(c)
template <class C, class S>
struct LstmStep {
  C* gates;
  const C* cBefore;  // nullptr: zeros
  C* c;
  S *y, *last;  // last: the cells once more, or nullptr

  template <int V>
  ADJOINT_DEVICE void run(int64_t row, int64_t unit, int64_t size) const {
    const int64_t at = row * size + unit;
    C* const gate = gates + row * 4 * size + unit;
    C a[4][V], before[V], cell[V], h[V];
    for (int b = 0; b < 4; b++) loadUnits(gate + b * size, a[b]);
    loadUnitsOrZeros(cBefore, at, before);
    for (int j = 0; j < V; j++) {
      a[0][j] = sigmoidOf(a[0][j]);
      a[1][j] = sigmoidOf(a[1][j]);
      a[2][j] = Math<C>::tanh(a[2][j]);
      a[3][j] = sigmoidOf(a[3][j]);
      cell[j] = a[1][j] * before[j] + a[0][j] * a[2][j];
      h[j] = a[3][j] * Math<C>::tanh(cell[j]);
    }
    for (int b = 0; b < 4; b++) storeUnits(gate + b * size, a[b]);
    storeUnits(c + at, cell);
    storeUnits(y + at, h);
    if (last) storeUnits(last + at, cell);
  }
};

// With y = o t, t = tanh(c): dh = dhAfter + dy; dc = dcAfter + dh o (1 - t^2); di = dc g,
// df = dc cBefore, dg = dc i, do = dh t, times the derivatives s (1 - s) and 1 - g^2 of the
// activations; dcBefore = dc f
template <class C, class S>
struct LstmStepBackward {
  const C *gates, *cBefore, *c;
  const S* dy;  // rows dyRow apart
  int64_t dyRow;
  const C *dhAfter, *dcAfter;  // what the step after sent; cBefore, dy and these may be nullptr
  S* dgates;
  C* dcBefore;
  S* dc0;  // dcBefore once more, or nullptr

  template <int V>
  ADJOINT_DEVICE void run(int64_t row, int64_t unit, int64_t size) const {
    const int64_t at = row * size + unit, gate = row * 4 * size + unit;
    C a[4][V], before[V], cell[V], dh[V], dhNow[V], dc[V];
    for (int b = 0; b < 4; b++) loadUnits(gates + gate + b * size, a[b]);
    loadUnitsOrZeros(cBefore, at, before);
    loadUnits(c + at, cell);
    loadUnitsOrZeros(dhAfter, at, dh);
    loadUnitsOrZeros(dy, row * dyRow + unit, dhNow);
    loadUnitsOrZeros(dcAfter, at, dc);
    for (int j = 0; j < V; j++) {
      const C i = a[0][j], f = a[1][j], g = a[2][j], o = a[3][j], t = Math<C>::tanh(cell[j]);
      const C sum = dh[j] + dhNow[j], toCell = dc[j] + sum * o * (C(1) - t * t);
      a[0][j] = toCell * g * i * (C(1) - i);
      a[1][j] = toCell * before[j] * f * (C(1) - f);
      a[2][j] = toCell * i * (C(1) - g * g);
      a[3][j] = sum * t * o * (C(1) - o);
      dc[j] = toCell * f;
    }
    for (int b = 0; b < 4; b++) storeUnits(dgates + gate + b * size, a[b]);
    storeUnits(dcBefore + at, dc);
    if (dc0) storeUnits(dc0 + at, dc);
  }
};

// Gates n, r, z come as what x adds to them, r and z with the state's sums, and m whole:
// n = tanh(n + sigmoid(r) m); y = (1 - z) n + z hBefore, z = sigmoid(z)
template <class C, class S>
struct GruStep {
  C* gates;
  const S* hBefore;  // nullptr: zeros
  S* y;

  template <int V>
  ADJOINT_DEVICE void run(int64_t row, int64_t unit, int64_t size) const {
    const int64_t at = row * size + unit;
    C* const gate = gates + row * 4 * size + unit;
    C a[4][V], before[V], h[V];
    for (int b = 0; b < 4; b++) loadUnits(gate + b * size, a[b]);
    loadUnitsOrZeros(hBefore, at, before);
    for (int j = 0; j < V; j++) {
      a[1][j] = sigmoidOf(a[1][j]);
      a[2][j] = sigmoidOf(a[2][j]);
      a[0][j] = Math<C>::tanh(a[0][j] + a[1][j] * a[3][j]);
      h[j] = a[0][j] + a[2][j] * (before[j] - a[0][j]);
    }
    for (int b = 0; b < 3; b++) storeUnits(gate + b * size, a[b]);
    storeUnits(y + at, h);
  }
};

// dh = dhAfter + dy; dn = dh (1 - z) (1 - n^2), dr = dn m r (1 - r), dz = dh (hBefore - n) z (1 -
// z), dm = dn r; dhBefore = dh z, to which the product with the weights is added
template <class C, class S>
struct GruStepBackward {
  const C* gates;
  const S *hBefore, *dy;  // rows of dy dyRow apart
  int64_t dyRow;
  const C* dhAfter;  // hBefore, dy and dhAfter may be nullptr
  S* dgates;
  C* dhBefore;

  template <int V>
  ADJOINT_DEVICE void run(int64_t row, int64_t unit, int64_t size) const {
    const int64_t at = row * size + unit, gate = row * 4 * size + unit;
    C a[4][V], before[V], dh[V], dhNow[V];
    for (int b = 0; b < 4; b++) loadUnits(gates + gate + b * size, a[b]);
    loadUnitsOrZeros(hBefore, at, before);
    loadUnitsOrZeros(dhAfter, at, dh);
    loadUnitsOrZeros(dy, row * dyRow + unit, dhNow);
    for (int j = 0; j < V; j++) {
      const C n = a[0][j], r = a[1][j], z = a[2][j], m = a[3][j], sum = dh[j] + dhNow[j];
      const C dn = sum * (C(1) - z) * (C(1) - n * n);
      a[0][j] = dn;
      a[1][j] = dn * m * r * (C(1) - r);
      a[2][j] = sum * (before[j] - n) * z * (C(1) - z);
      a[3][j] = dn * r;
      dh[j] = sum * z;
    }
    for (int b = 0; b < 4; b++) storeUnits(dgates + gate + b * size, a[b]);
    storeUnits(dhBefore + at, dh);
  }
};

// Which units a thread takes.
struct CellWalk {
  Divider perRow;  // items of a row
  uint32_t items;  // of V units each
  int64_t size;
};

template <int V, class Step>
__global__ void __launch_bounds__(kCellThreads) cellKernel(const Step step, const CellWalk walk) {
  const uint32_t threads = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < walk.items; i += threads) {
    const uint32_t row = walk.perRow.quotient(i);
    step.template run<V>(row, int64_t(i - row * walk.perRow.divisor) * V, walk.size);
  }
}

}  // namespace adjoint::cuda
