// Matrix products by cuBLASLt. The library thinks in columns: a row-major matrix is its transpose
// to it. So it is asked for yT [n, m] = bT [n, k] @ aT [k, m], where the bias, one number for each
// of yT's rows, is what its epilogue adds.
#include <cublasLt.h>

#include <string>

#include "cuda/gemm.h"
#include "cuda/library.h"
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

// Never destroyed, as the device itself (device.cpp).
cublasLtHandle_t handle() {
  static const cublasLtHandle_t h = [] {
    cublasLtHandle_t made = nullptr;
    ADJOINT_CUBLAS(library().cublasLtCreate(&made));
    return made;
  }();
  return h;
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

// The heuristics assume 256 bytes unless told. Blocks of memory start at 64; what lies better does
// so by chance, and must not choose an algorithm that gives other bits.
uint32_t alignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  uint32_t alignment = 64;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
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

void gemm(const Gemm& g, cudaStream_t stream) {
  const bool wide = g.dtype == DType::float64;
  const cublasComputeType_t compute = wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
  Operation operation;
  ADJOINT_CUBLAS(
      library().cublasLtMatmulDescCreate(operation.put(), compute, wide ? CUDA_R_64F : CUDA_R_32F));
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, g.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, g.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (g.bias) {
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
  }
  Layout a, b, y;
  describe(a, g, g.dtype, g.a, g.m, g.k);
  describe(b, g, g.dtype, g.b, g.k, g.n);
  describe(y, g, g.yDType(), g.y, g.m, g.n);

  Preference preference;
  ADJOINT_CUBLAS(library().cublasLtMatmulPreferenceCreate(preference.put()));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignmentOf(g.b.data));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignmentOf(g.a.data));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignmentOf(g.y.data));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignmentOf(g.y.data));
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  ADJOINT_CUBLAS(library().cublasLtMatmulAlgoGetHeuristic(handle(), operation, b, a, y, y,
                                                          preference, 1, &best, &found));
  if (found == 0) fail(ErrorKind::device, "cublasLt: no algorithm for this product");

  const Workspace workspace(best.workspaceSize > 0 ? best.workspaceSize : 1);
  const float one32 = 1, zero32 = 0;
  const double one64 = 1, zero64 = 0;
  const void* one = wide ? static_cast<const void*>(&one64) : &one32;
  const void* zero = wide ? static_cast<const void*>(&zero64) : &zero32;
  ADJOINT_CUBLAS(library().cublasLtMatmul(
      handle(), operation, one, g.b.data, b, g.a.data, a, g.accumulate ? one : zero, g.y.data, y,
      g.y.data, y, &best.algo, workspace.data(), best.workspaceSize, stream));
}

}  // namespace adjoint::cuda
