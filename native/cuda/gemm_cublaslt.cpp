// Matrix products by cuBLASLt. The library thinks in columns: a row-major matrix is its transpose
// to it. So it is asked for yT [n, m] = bT [n, k] @ aT [k, m], where the bias, one number for each
// of yT's rows, is what its epilogue adds.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/gemm.h"
#include "cuda/library.h"
#include "cuda/per_device.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {
namespace {

// The functions of cuBLASLt that are called here.
#define ADJOINT_CUBLASLT_FUNCTIONS(X)     \
  X(cublasLtCreate)                       \
  X(cublasLtGetVersion)                   \
  X(cublasLtMatmul)                       \
  X(cublasLtMatmulAlgoGetHeuristic)       \
  X(cublasLtMatmulDescCreate)             \
  X(cublasLtMatmulDescDestroy)            \
  X(cublasLtMatmulDescSetAttribute)       \
  X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulPreferenceDestroy)      \
  X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatrixLayoutCreate)           \
  X(cublasLtMatrixLayoutDestroy)          \
  X(cublasLtMatrixLayoutSetAttribute)     \
  X(cublasLtGetStatusString)

struct CublasLt {
  explicit CublasLt(const Library& library) : path(library.path()) {
#define ADJOINT_LOAD(name) name = library.function<decltype(::name)>(#name);
    ADJOINT_CUBLASLT_FUNCTIONS(ADJOINT_LOAD)
#undef ADJOINT_LOAD
  }
  std::string path;
#define ADJOINT_MEMBER(name) decltype(&::name) name;
  ADJOINT_CUBLASLT_FUNCTIONS(ADJOINT_MEMBER)
#undef ADJOINT_MEMBER
};

// Loaded at first use; throws where it is not to be had.
const CublasLt& library() {
  static const CublasLt* l =
      new CublasLt(Library({"libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR)}));
  return *l;
}

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail(ErrorKind::device, "cublasLt: %s: %s", call, library().cublasLtGetStatusString(status));
  }
}
#define ADJOINT_CUBLAS(call) check((call), #call)

constexpr size_t kWorkspaceBytes = size_t(32) << 20;

// The library's context is that of one device.
struct Context {
  Context() { ADJOINT_CUBLAS(library().cublasLtCreate(&handle)); }
  cublasLtHandle_t handle = nullptr;
};
cublasLtHandle_t handle() {
  static PerDevice<Context> contexts;
  return contexts.get().handle;
}

cudaDataType_t dataType(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return CUDA_R_32F;
    case DType::float64:
      return CUDA_R_64F;
    case DType::bfloat16:
      return CUDA_R_16BF;
    case DType::float16:
      return CUDA_R_16F;
    default:
      fail(ErrorKind::dtype, "matmul: expected a floating dtype, got %s", dtypeName(dtype));
  }
}

// A descriptor that is destroyed with its scope.
template <class Handle, cublasStatus_t (*CublasLt::*destroy)(Handle)>
class Descriptor {
 public:
  Descriptor() = default;
  ~Descriptor() {
    if (handle_) (library().*destroy)(handle_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Handle* put() { return &handle_; }
  operator Handle() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Operation = Descriptor<cublasLtMatmulDesc_t, &CublasLt::cublasLtMatmulDescDestroy>;
using Layout = Descriptor<cublasLtMatrixLayout_t, &CublasLt::cublasLtMatrixLayoutDestroy>;
using Preference =
    Descriptor<cublasLtMatmulPreference_t, &CublasLt::cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Operation& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  ADJOINT_CUBLAS(library().cublasLtMatmulDescSetAttribute(d, attribute, &value, sizeof value));
}
template <class T>
void set(const Layout& d, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
  ADJOINT_CUBLAS(library().cublasLtMatrixLayoutSetAttribute(d, attribute, &value, sizeof value));
}
template <class T>
void set(const Preference& d, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  ADJOINT_CUBLAS(
      library().cublasLtMatmulPreferenceSetAttribute(d, attribute, &value, sizeof value));
}

// rows x columns as our row-major side sees them
void describe(Layout& layout, const Gemm& g, DType dtype, const GemmMatrix& matrix, int64_t rows,
              int64_t columns) {
  const auto fast = static_cast<uint64_t>(matrix.transposed ? rows : columns);
  const auto slow = static_cast<uint64_t>(matrix.transposed ? columns : rows);
  ADJOINT_CUBLAS(library().cublasLtMatrixLayoutCreate(layout.put(), dataType(dtype), fast, slow,
                                                      matrix.leading));
  if (g.batch > 1) {
    set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<int32_t>(g.batch));
    set(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, matrix.batchStride);
  }
}

// The heuristics assume 256 bytes unless told.
uint32_t alignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

// ---------------------------------------------------------------- plans
// What products may be computed in, the best first; the library may lack some on a device.
std::vector<cublasComputeType_t> computeTypes(DType dtype, backend::Float32Products precision) {
  if (dtype == DType::float64) return {CUBLAS_COMPUTE_64F};
  if (dtype == DType::float32 && precision == backend::Float32Products::high) {
    return {CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F};
  }
  if (dtype == DType::float32 && precision == backend::Float32Products::medium) {
    return {CUBLAS_COMPUTE_32F_FAST_16BF, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F};
  }
  return {CUBLAS_COMPUTE_32F};
}

// All of a product but where its matrices lie: of that, what the choice of an algorithm looks at.
using PlanKey = std::array<int64_t, 23>;
PlanKey keyOf(const Gemm& g, backend::Float32Products precision) {
  return {static_cast<int64_t>(g.dtype),
          g.wideOutput,
          static_cast<int64_t>(precision),
          g.batch,
          g.m,
          g.n,
          g.k,
          g.a.transposed,
          g.a.leading,
          g.a.batchStride,
          g.b.transposed,
          g.b.leading,
          g.b.batchStride,
          g.y.leading,
          g.y.batchStride,
          alignmentOf(g.a.data) * int64_t(1024) + alignmentOf(g.b.data),
          alignmentOf(g.y.data),
          g.bias ? alignmentOf(g.bias) : 0,
          static_cast<int64_t>(g.activation),
          g.kept ? alignmentOf(g.kept) : 0,
          g.sums ? alignmentOf(g.sums) : 0,
          g.below ? alignmentOf(g.below) : 0,
          g.columnSums ? alignmentOf(g.columnSums) : 0};
}
struct PlanHash {
  size_t operator()(const PlanKey& key) const {
    uint64_t hash = 0;
    for (int64_t field : key) {
      hash = (hash ^ static_cast<uint64_t>(field)) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

// yT has a column for each row of y, and the B that it is made of is our a.
cublasLtEpilogue_t epilogueOf(const Gemm& g) {
  if (g.sums) return CUBLASLT_EPILOGUE_BGRADB;
  if (g.below) return g.columnSums ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
  switch (g.activation) {
    case Activation::relu:
      return g.bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case Activation::geluTanh:
      if (g.kept) return g.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
      return g.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default:
      return g.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

// What the library calls the bias, which it reads or writes.
const void* vectorOf(const Gemm& g) {
  return g.bias ? g.bias : g.sums ? g.sums : g.columnSums;
}
// What the library calls the auxiliary matrix, which it writes or reads.
const void* besideY(const Gemm& g) {
  return g.kept ? g.kept : g.below;
}

// The library's descriptions of a product and the algorithm that it chose: tens of microseconds of
// work, so plans are kept.
class GemmPlan {
 public:
  GemmPlan(const Gemm& g, backend::Float32Products precision) {
    describe(a_, g, g.dtype, g.a, g.m, g.k);
    describe(b_, g, g.dtype, g.b, g.k, g.n);
    describe(y_, g, g.yDType(), g.y, g.m, g.n);
    for (cublasComputeType_t compute : computeTypes(g.dtype, precision)) {
      hasAlgorithm_ = choose(g, compute);
      if (hasAlgorithm_) return;
    }
  }
  // Whether the library can do it.
  bool run(const Gemm& g, cudaStream_t stream) {
    if (!hasAlgorithm_) return false;
    setPointers(g);
    std::unique_ptr<Workspace> workspace;
    if (best_.workspaceSize > 0) workspace.reset(new Workspace(best_.workspaceSize));
    const float one32 = 1, zero32 = 0;
    const double one64 = 1, zero64 = 0;
    const bool isDouble = g.dtype == DType::float64;
    const void* one = isDouble ? static_cast<const void*>(&one64) : &one32;
    const void* zero = isDouble ? static_cast<const void*>(&zero64) : &zero32;
    const cublasStatus_t status = library().cublasLtMatmul(
        handle(), *operation_, one, g.b.data, b_, g.a.data, a_, g.accumulate ? one : zero, g.y.data,
        y_, g.y.data, y_, &best_.algo, workspace ? workspace->data() : nullptr, best_.workspaceSize,
        stream);
    // What the heuristics offer with an epilogue may be refused; then it is not asked for again.
    if (g.isFused() && isRefusal(status)) return hasAlgorithm_ = false;
    check(status, "cublasLtMatmul");
    return true;
  }

 private:
  static bool isRefusal(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
  }
  void setPointers(const Gemm& g) const {
    if (vectorOf(g)) set(*operation_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vectorOf(g));
    if (besideY(g)) set(*operation_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, besideY(g));
  }

  // Whether the library has an algorithm.
  bool choose(const Gemm& g, cublasComputeType_t compute) {
    operation_.reset(new Operation);
    const cudaDataType_t scale = g.dtype == DType::float64 ? CUDA_R_64F : CUDA_R_32F;
    ADJOINT_CUBLAS(library().cublasLtMatmulDescCreate(operation_->put(), compute, scale));
    set(*operation_, CUBLASLT_MATMUL_DESC_TRANSA, g.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(*operation_, CUBLASLT_MATMUL_DESC_TRANSB, g.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    // What is stored last is as aligned as the bias is, for algorithms that read both alike.
    uint32_t outputAlignment = alignmentOf(g.y.data);
    if (g.bias) outputAlignment = std::min(outputAlignment, alignmentOf(g.bias));
    if (besideY(g)) {
      set(*operation_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, g.y.leading);
      outputAlignment = std::min(outputAlignment, alignmentOf(besideY(g)));
    }
    set(*operation_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogueOf(g));
    setPointers(g);
    Preference preference;
    ADJOINT_CUBLAS(library().cublasLtMatmulPreferenceCreate(preference.put()));
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignmentOf(g.b.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignmentOf(g.a.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignmentOf(g.y.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, outputAlignment);
    if (itemSize(g.yDType()) == 2) {
      // Partial sums of a product whose depth is split must not be rounded to a half type.
      set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
          static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    }
    int found = 0;
    const cublasStatus_t status = library().cublasLtMatmulAlgoGetHeuristic(
        handle(), *operation_, b_, a_, y_, y_, preference, 1, &best_, &found);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (g.isFused() && isRefusal(status))) return false;
    check(status, "cublasLtMatmulAlgoGetHeuristic");
    return found > 0;
  }

  std::unique_ptr<Operation> operation_;
  Layout a_, b_, y_;
  cublasLtMatmulHeuristicResult_t best_{};
  bool hasAlgorithm_ = false;
};

// One device's plans, of all threads.
class Plans {
 public:
  // Whether the library can do it.
  bool run(const Gemm& g, cudaStream_t stream) {
    const backend::Float32Products precision = float32Products();
    const PlanKey key = keyOf(g, precision);
    // Held while a plan runs, since its description holds the bias.
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      // A program whose shapes are always new must not keep them all.
      if (plans_.size() >= kMostPlans) plans_.clear();
      found = plans_.emplace(key, std::make_unique<GemmPlan>(g, precision)).first;
    }
    return found->second->run(g, stream);
  }

 private:
  static constexpr size_t kMostPlans = 2048;
  std::mutex mutex_;
  std::unordered_map<PlanKey, std::unique_ptr<GemmPlan>, PlanHash> plans_;
};

Plans& plans() {
  static PerDevice<Plans> plansOf;
  return plansOf.get();
}

}  // namespace

std::string gemmLibrary() {
  try {
    const size_t v = library().cublasLtGetVersion();
    return library().path + " " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100);
  } catch (const Error& error) {
    return error.what();
  }
}

bool fusedGemm(const Gemm& g, cudaStream_t stream) {
  return plans().run(g, stream);
}

void gemm(const Gemm& g, cudaStream_t stream) {
  if (plans().run(g, stream)) return;
  Gemm rest = g;
  if (g.bias && !g.accumulate) {
    // The bias for each row first, to which the product is then added.
    View y, bias;
    y.dtype = bias.dtype = g.yDType();
    y.data = g.y.data;
    y.ndim = 3;
    const int64_t size[] = {g.batch, g.m, g.n}, stride[] = {g.y.batchStride, g.y.leading, 1};
    std::copy_n(size, 3, y.size);
    std::copy_n(stride, 3, y.stride);
    bias.data = const_cast<void*>(g.bias);
    bias.ndim = 1;
    bias.size[0] = g.n;
    bias.stride[0] = 1;
    backend::copy(y, bias);
    rest.bias = nullptr;
    rest.accumulate = true;
    if (plans().run(rest, stream)) return;
  }
  fail(ErrorKind::device, "cublasLt: no algorithm for a product of %s [%lld, %lld] x [%lld, %lld]",
       dtypeName(g.dtype), static_cast<long long>(g.m), static_cast<long long>(g.k),
       static_cast<long long>(g.k), static_cast<long long>(g.n));
}

}  // namespace adjoint::cuda
