// Every kernel that a backend provides. native/addon compiles once against native/cpu and once
// against native/cuda; both define exactly these functions, so a missing one breaks the link of
// the self-test executable.
//
// Rules for all of them:
// - The glue has validated handles, bounds and shapes; outputs never overlap inputs, unless they
//   are the very same view (in-place), which elementwise kernels must allow.
// - Inputs may have any strides; outputs written through a View may too, unless "dense" is said.
// - Views may be empty or zero-dimensional.
// - Work may be queued: a function returns before its result is there, except where it says that
//   it waits. Memory is freed in the same order, so a freed block may still be in use by work that
//   was queued before the free, and by none after it.
// - Failures throw adjoint::Error.
// - Results do not depend on the number of threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shared/error.h"
#include "shared/opcodes.h"
#include "shared/pinned_memory.h"
#include "shared/view.h"

namespace adjoint::backend {

// ---------------------------------------------------------------- device
const char* name();  // "cpu" or "cuda"
// Facts for `adjoint doctor`: pairs such as {"simd", "avx512"}, {"threads", "2"}.
std::vector<std::pair<std::string, std::string>> deviceInfo();
int threadCount();
void setThreadCount(int n);  // n >= 1
// What products may do with float32 operands where that is faster: nothing; sum three products of
// their bfloat16 parts; round them to bfloat16. On CUDA both of these allow TF32. Of the process.
enum class Float32Products : int { highest, high, medium };
void setFloat32Products(Float32Products precision);
// Whether the same input must give the same bits at every run even where a faster kernel adds in an
// order that changes; at first it need not. Of the process.
void setDeterministicAlgorithms(bool enabled);
// Whether convolutions of this dtype are to leave their images with the channels innermost in
// memory (channels-last) because they are faster so.
bool convolvesChannelsLast(DType dtype);
// Called when the first environment of the process loads the addon and when the last one goes.
// startup throws where there is no device that can be used, and may be called again then.
void startup();
void shutdown();
// Devices are numbered from 0. Each has memory, queued work, caches and statistics of its own, and
// all other functions are about the one that this thread has named last, at first 0. useDevice
// throws where the device is not there or can't be used; for one in use it compares a number.
int deviceCount();
void useDevice(int device);
// Waits for all queued work. Where work is queued, this and copyToHost throw what an earlier kernel
// found wrong with its data ("deferred"): the first such error, once.
void synchronize();

// ---------------------------------------------------------------- captured steps
// Whether the calls of a step can be recorded here and run again.
bool canCapture();
// The work of a step as the device keeps it, to be queued at once (a CUDA graph).
struct Graph;
// What this thread calls up to endGraph goes to the graph and is not run. nullptr where the device
// makes none: calls then run as always.
Graph* beginGraph();
// What this thread calls up to endGraph runs nothing and only renews what may change in the graph,
// the values of SgdArgs, AdamArgs and RandomState: those calls alone, in their order.
void renewGraph(Graph* graph);
// Throws where the work could not be kept; some calls throw by themselves then, as those that wait.
void endGraph(Graph* graph);
size_t changingValues(const Graph* graph);  // how many it has met
void launchGraph(Graph* graph);             // queues the work
void releaseGraph(Graph* graph);            // queued work still runs

// ---------------------------------------------------------------- memory
struct AllocatorStats {
  size_t liveBytes;      // handed out, as asked for
  size_t reservedBytes;  // taken from the system, cached blocks included
  size_t cachedBytes;    // free, kept for reuse
  size_t peakLiveBytes;
  uint64_t allocations;
  uint64_t systemAllocations;
};
// 64-byte aligned, contents undefined. Returns nullptr when the cap or the machine is exhausted
// (the caller collects garbage and tries again). bytes >= 1.
void* allocate(size_t bytes);
void release(void* block, size_t bytes);
void trimCache();                 // gives cached blocks back to the system
void setMemoryCap(size_t bytes);  // 0: none
AllocatorStats allocatorStats();
void resetPeakMemory();  // the peak is what is live now
// dense bytes, to and from host memory. copyToHost waits; copyFromHost has read `source` when it
// returns.
void copyFromHost(void* target, const void* source, size_t bytes);
void copyToHost(void* target, const void* source, size_t bytes);
// Dense bytes from another device's memory. Queued: it comes after what is queued so far on either
// device, and before what is queued later.
void copyFromDevice(void* target, const void* source, int sourceDevice, size_t bytes);
// The same as copyToHost in steps, so that another thread can wait: beginCopyToHost queues it, or
// returns nullptr where copyToHost waits for nothing. waitForCopy may run on any thread. endCopy
// gives up the copy, and fills `target` with its first bytes unless that is nullptr.
struct HostCopy;
HostCopy* beginCopyToHost(const void* source, size_t bytes);
void waitForCopy(HostCopy& copy);
void endCopy(HostCopy* copy, void* target, size_t bytes);

// Host memory for tensors of the CPU that are copied here often, or nullptr.
const PinnedMemory* pinnedMemory();
// Queues a copy of bytes that lie in a block of that memory: they are read when queued work gets
// there. The caller changes them only after PinnedMemory::wait.
void copyFromPinned(void* target, const void* source, size_t bytes);

// A moment in the order of queued work, for profiles.
using Moment = uint64_t;
Moment mark();
// Milliseconds from the first moment to each. They were noted in this order; waits for the last and
// gives them up.
std::vector<double> elapsed(const std::vector<Moment>& moments);

// rates float64 [3], measured now with all threads: operations per second on registers (a
// multiply-add is two) of float32 and of bfloat16 products, and bytes per second that a copy beyond
// the caches reads and writes.
void probe(const View& rates);

// ---------------------------------------------------------------- elementwise
void fill(const View& y, const Scalar& value);
// y = x with conversion; x is broadcast to y's shape (right-aligned).
void copy(const View& y, const View& x);
// y and x have the same shape (isnan … write bool). `common` is the dtype it is computed in.
void unary(UnaryOp op, const View& y, const View& x, DType common);
// a and b broadcast to y. `common` is their promoted dtype, computed in computeType(common).
void binary(BinaryOp op, const View& y, const Operand& a, const Operand& b, DType common);
// y = condition ? a : b, condition bool, all broadcast to y.
void where(const View& y, const View& condition, const Operand& a, const Operand& b);
// y[i] = start + i * step, y 1-d
void arange(const View& y, const Scalar& start, const Scalar& step);

// ---------------------------------------------------------------- reductions
// x [..], y of the same ndim with size 1 in the reduced axes. Floats accumulate in float32 or
// wider, pairwise; float64 in float64; integers in int64. amax, amin propagate NaN.
void reduce(ReduceOp op, const View& y, const View& x);
// y int64, size 1 in `axis`; the first of equal values; NaN wins.
void argReduce(ArgOp op, const View& y, const View& x, int axis);

// softmax over `axis`: y = exp(x - max) / sum, or its logarithm. y has x's shape.
void softmax(const View& y, const View& x, int axis, bool logarithm);
// dx = y * (dy - sum(dy * y)), or dy - exp(y) * sum(dy) for the logarithm
void softmaxBackward(const View& dx, const View& dy, const View& y, int axis, bool logarithm);

// ---------------------------------------------------------------- products
// y [.., M, N] = a [.., M, K] @ b [.., K, N] (+ bias [N]); all of one dtype; batch axes equal (a
// and b expanded by stride 0); any strides, so transposes cost no copy. Floats accumulate in
// float32 or wider; K may be 0. bias: nullptr for none.
void matmul(const View& y, const View& a, const View& b, const View* bias);

// z = x wT + bias; y = f(z). x [N, K], w [M, K], bias [M] or nullptr; y [N, M], dense. kept: what
// the backward pass tells f'(z) from where y does not say it (of GELU), dense and of y's shape, the
// backend's own affair: f'(z) on the CPU, z on a GPU; nullptr where it is not wanted. Of one
// floating dtype.
void linear(const View& y, const View* kept, const View& x, const View& w, const View* bias,
            Activation activation);
// dz = dy f'(z), told from `kept`, which is y for relu and what `linear` left for GELU (nullptr for
// none: dz = dy); dx = dz w; dw = dzT x; dbias [M] = sum of dz over its rows. dx, dw, dbias:
// nullptr where not wanted, and then w or x may be too. On the CPU dw and dbias may be float32
// where dy is half. Where x = g(u) comes from a layer below, dx is the gradient of u: g'(u) times
// that of x.
struct LayerBelow {
  Activation activation = Activation::none;  // g
  const View* kept = nullptr;                // of it, as `kept` above
  const View* dbias = nullptr;               // [K] = sum of dx over its rows
};
struct LinearBackwardArgs {
  const View *dx, *dw, *dbias;
  View dy;
  const View *x, *w, *kept;
  Activation activation;
  LayerBelow below = {};
};
void linearBackward(const LinearBackwardArgs& a);

struct Conv2dShape {
  int64_t strideH, strideW, padH, padW, dilationH, dilationW, groups;
};
// x [N, C, H, W], w [K, C / groups, R, S], bias [K] or nullptr, y [N, K, P, Q]
// relu: y = max(y, 0)
void conv2d(const View& y, const View& x, const View& w, const View* bias, const Conv2dShape& s,
            bool relu = false);
void conv2dBackwardInput(const View& dx, const View& dy, const View& w, const Conv2dShape& s);
void conv2dBackwardWeight(const View& dw, const View& dy, const View& x, const Conv2dShape& s);
// dw and dbias [K] together; dy counts as 0 where y, of its shape, is 0 or less (nullptr: nowhere).
// On the CPU both, and dw above, may be float32 where dy is half.
void conv2dBackwardParameters(const View& dw, const View& dbias, const View& dy, const View& x,
                              const View* y, const Conv2dShape& s);

struct Pool2dShape {
  int64_t kernelH, kernelW, strideH, strideW, padH, padW, dilationH, dilationW;
};
// x [N, C, H, W], y [N, C, P, Q]; tap, of y's shape: the number r kernelW + s of the window's
// element that is its maximum (the first one; NaN wins), uint8 for windows of up to 256 elements or
// int32. Where a window sees nothing but padding: one outside the image.
void maxPool2d(const View& y, const View& tap, const View& x, const Pool2dShape& s);
// dx [N, C, H, W] = sum of dy over the windows whose tap is there
void maxPool2dBackward(const View& dx, const View& dy, const View& tap, const Pool2dShape& s);
// y [N, C, P, Q] = x [N, C, H, W] at the taps, 0 outside the image (the gradient of the backward)
void maxPool2dGather(const View& y, const View& x, const View& tap, const Pool2dShape& s);

// ---------------------------------------------------------------- normalisation
// Over all axes but 1 of x [N, C, ..]. weight, bias [C] or nullptr. mean, rstd [C] are written:
// of float32, or float64 where x is. runningMean, runningVar [C] or nullptr are updated in place:
// r = (1 - momentum) r + momentum * batch (variance unbiased).
struct BatchNormArgs {
  View y, mean, rstd, x;
  const View *weight, *bias, *runningMean, *runningVar;
  double momentum, eps;
  bool relu;  // whether y is rectified
};
void batchNorm(const BatchNormArgs& a);
// xhat = (x - mean) rstd; dweight = sum(dy xhat); dbias = sum(dy);
// dx = weight rstd (dy - (dbias + xhat dweight) / count); with relu, dy counts as 0 where
// xhat weight + bias <= 0
struct BatchNormBackwardArgs {
  View dx, dweight, dbias, dy, x;
  const View *weight, *bias;
  View mean, rstd;
  bool relu;
};
void batchNormBackward(const BatchNormBackwardArgs& a);

// By rows: x [.., C], its last axes (of which there may be several) as one. mean, rstd [..] are
// written dense, of float32, or float64 where x is; weight, bias [C] or nullptr.
//   layer norm (Ba et al. 2016): y = (x - mean) rstd weight + bias, over the biased variance
//   RMS norm (Zhang & Sennrich 2019): mean and bias nullptr; y = x rstd weight,
//     rstd = 1 / sqrt(sum(x^2) / C + eps)
struct LayerNormArgs {
  View y, rstd, x;
  const View *mean, *weight, *bias;
  double eps;
};
void layerNorm(const LayerNormArgs& a);
// xhat = (x - mean) rstd; g = dy weight; dweight = sum(dy xhat); dbias = sum(dy);
// dx = rstd (g - (sum(g) + xhat sum(g xhat)) / C); of RMS norm mean and dbias are nullptr and
// sum(g) is left out. dweight, dbias [C] are written, with or without a weight.
struct LayerNormBackwardArgs {
  View dx, dweight, dy, x, rstd;
  const View *dbias, *weight, *mean;
};
void layerNormBackward(const LayerNormBackwardArgs& a);

// ---------------------------------------------------------------- attention
// y = softmax(scale q k^T + mask) v, lse = log of the sum of the exponentials; q [B, H, Tq, D],
// k [B, H, Tk, D], v [B, H, Tk, E], y [B, H, Tq, E]; mask [B, H, Tq, Tk] or nullptr: bool (a key
// counts where it is true) or added. isCausal: query i sees keys up to i. A row that sees no key is
// 0, and its lse infinity. lse [B, H, Tq]: dense, of float32, or float64 where q is.
void attention(const View& y, const View& lse, const View& q, const View& k, const View& v,
               const View* mask, double scale, bool isCausal);
// p = exp(scale q k^T + mask - lse); dp = dy v^T; ds = p (dp - sum(dy y)) scale;
// dv = p^T dy; dq = ds k; dk = ds^T q
struct AttentionBackwardArgs {
  View dq, dk, dv, dy, q, k, v, y, lse;
  const View* mask;
  double scale;
  bool isCausal;
};
void attentionBackward(const AttentionBackwardArgs& a);

// ---------------------------------------------------------------- losses
// loss[n] = logsumexp(logits[n, :]) - logits[n, target[n]], 0 where target[n] == ignoreIndex;
// logits [N, C], target int64 [N], loss and lse [N]. A target outside [0, C) throws an index
// error, which may be deferred.
void crossEntropy(const View& loss, const View& lse, const View& logits, const View& target,
                  int64_t ignoreIndex);
// loss [] = mean of the losses whose target is not ignored (NaN if there is none); rate [] = 1 /
// their number; lse [N] as above
void crossEntropyMean(const View& loss, const View& rate, const View& lse, const View& logits,
                      const View& target, int64_t ignoreIndex);
// dlogits[n, c] = dy[n] (exp(logits[n, c] - lse[n]) - [c == target[n]]), 0 for ignored rows
void crossEntropyBackward(const View& dlogits, const View& dy, const View& logits, const View& lse,
                          const View& target, int64_t ignoreIndex);

// ---------------------------------------------------------------- recurrent layers
// One layer in one direction over a whole sequence: T steps, a batch of N, H units; with `reverse`
// the last step comes first. All of one floating dtype, but gates and cells, which are kept in the
// dtype that is computed in (float32 for half types); outputs dense.
struct RecurrentInputs {
  View x, wIh, wHh;       // [T, N, I], [G H, I], [G H, H] with G = 4 (lstm) or 3 (gru)
  const View *bIh, *bHh;  // [G H] or nullptr
  const View *h0, *c0;    // [N, H]: the state before the first step, nullptr for zeros; c0: lstm
  bool reverse;
};
// Hochreiter & Schmidhuber 1997 with forget gates. Rows of the weights: i, f, g, o.
// a = wIh x_t + bIh + wHh h + bHh; c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c).
// y [T, N, H] is h of each step, c [N, H] the cells after the last one; gates [T, N, 4H] (after
// their activations) and cells [T, N, H] are for the backward pass.
struct LstmOutputs {
  View y, c, gates, cells;
};
void lstm(const LstmOutputs& out, const RecurrentInputs& in);
// dgates [T, N, 4H] is the gradient of a; dh0, dc0 [N, H]; dbias [4H] is the sum of dgates. dy
// [T, N, H], dc [N, H] or nullptr.
struct LstmGradients {
  View dgates, dh0, dc0, dbias;
};
void lstmBackward(const LstmGradients& out, const View* dy, const View* dc, const View& wHh,
                  const View* c0, const View& gates, const View& cells, bool reverse);
// Cho et al. 2014, with the reset gate after the product. Rows of the weights: r, z, n.
// m = wHn h + bHn; n = tanh(wIn x_t + bIn + sigmoid(r) m); h = (1 - sigmoid(z)) n + sigmoid(z) h.
// gates [T, N, 4H] holds n, r, z (after their activations) and m.
void gru(const View& y, const View& gates, const RecurrentInputs& in);
// dgates [T, N, 4H]: the gradients of the sums n, r, z and of m; dbias [4H]: their sums.
struct GruGradients {
  View dgates, dh0, dbias;
};
void gruBackward(const GruGradients& out, const View* dy, const View& wHh, const View* h0,
                 const View& gates, const View& y, bool reverse);

// ---------------------------------------------------------------- indexing (index int64)
// An index outside its axis throws index errors, which may be deferred; negative ones are refused
// too.
// y[.., i, ..] = x[.., index[.., i, ..], ..]; y and index have one shape
void gather(const View& y, const View& x, const View& index, int axis);
// y[.., index[.., i, ..], ..] += source[.., i, ..], in order
void scatterAdd(const View& y, const View& index, const View& source, int axis);
// y = x's slices at index [n] along axis
void indexSelect(const View& y, const View& x, const View& index, int axis);
// y's slices at index [n] along axis += source's, in order
void indexAdd(const View& y, const View& index, const View& source, int axis);
// y [N, D] = weight [V, D] at index [N]
void embedding(const View& y, const View& weight, const View& index);
// dweight [V, D]: for each index the sum of its rows of dy [N, D], in order; 0 at paddingIndex
// (-1: none). Floats of one dtype.
void embeddingBackward(const View& dweight, const View& dy, const View& index,
                       int64_t paddingIndex);
// y += x where y is a view whose elements may overlap; serial, in row-major order of x. y and x
// have one shape.
void accumulateOverlapping(const View& y, const View& x);

// ---------------------------------------------------------------- random numbers
// Philox4x32-10 (Salmon et al. 2011). Element i takes lane i % 4 of counter offset + i / 4 (of
// float64: lanes 2 (i % 2), 2 (i % 2) + 1 of counter offset + i / 2), in row-major order of y.
struct RandomState {
  uint64_t seed, offset;
};
// How far `random` and `dropout` advance the offset for n elements.
constexpr uint64_t randomAdvance(int64_t n) {
  return static_cast<uint64_t>((n + 1) / 2);
}
// uniform [a, b), normal (mean a, deviation b), bernoulli (probability a), randint [a, b)
void random(RandomOp op, const View& y, double a, double b, RandomState state);
// y int64 [n]: a permutation of 0..n-1
void randperm(const View& y, RandomState state);
// state int64 [2] on the device holds seed and offset: y[i] = u[i] < p ? 0 : x[i] / (1 - p), with
// u[i] the uniform number of element i, so the mask can be drawn again by the backward pass.
void writeRandomState(const View& state, RandomState value);
void dropout(const View& y, const View& x, double p, const View& state);

// ---------------------------------------------------------------- optimizers
// One call for all parameters. Views are dense, of one dtype per entry, and of one layout.
struct SgdEntry {
  View param, grad, momentum;  // momentum.data == nullptr: none
};
struct SgdArgs {
  double lr, momentum, dampening, weightDecay;
  bool nesterov, maximize, firstStep;  // firstStep: the momentum buffer becomes the gradient
};
void sgd(const std::vector<SgdEntry>& entries, const SgdArgs& args);

struct AdamEntry {
  View param, grad, m, v, vMax;  // vMax.data == nullptr: no amsgrad
};
struct AdamArgs {
  double lr, beta1, beta2, eps, weightDecay;
  int64_t step;         // from 1
  bool decoupledDecay;  // AdamW (Loshchilov & Hutter 2019), else L2 as in Adam
  bool maximize;
};
void adam(const std::vector<AdamEntry>& entries, const AdamArgs& args);

// grad = factor grad for all gradients; found [1] float32 becomes 1 if an element of any of them
// was infinite or NaN before.
void unscale(const std::vector<View>& grads, double factor, const View& found);

// ---------------------------------------------------------------- clipping
// All elements of xs as one vector; xs are dense and of one floating dtype.
// norm [] = (sum |x|^p)^(1/p), p > 0, of the dtype of xs; infinity: the largest |x|
void totalNorm(const View& norm, const std::vector<View>& xs, double p);
// x = x min(1, limit / (norm + 1e-6)) for each of xs; norm [] of any floating dtype
void clipToNorm(const std::vector<View>& xs, const View& norm, double limit);

// ---------------------------------------------------------------- a user's own kernels
// CUDA C++ compiled now, and the number of the kernel `name` in it: the same one for the same text,
// which is kept as long as the process. Throws an argument error with the compiler's log, and a
// device error where there is no compiler.
int compileCudaKernel(const std::string& source, const std::string& name,
                      const std::vector<std::string>& options);
struct CudaKernelLaunch {
  unsigned grid[3], block[3];
  size_t sharedBytes;
};
// A parameter of a kernel as it lies in memory: a tensor's address or a number.
struct CudaKernelArgument {
  size_t bytes;
  unsigned char value[8];
};
// Throws an argument error where number or sizes of the arguments are not those of the parameters.
// A grid with no block queues nothing.
void launchCudaKernel(int kernel, const CudaKernelLaunch& launch,
                      const std::vector<CudaKernelArgument>& arguments);

}  // namespace adjoint::backend
