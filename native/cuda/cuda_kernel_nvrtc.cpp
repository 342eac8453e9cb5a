// Users' kernels by NVRTC: CUDA C++ to machine code for the device, without files.
#include <cuda.h>
#include <dlfcn.h>
#include <nvrtc.h>

#include <filesystem>

#include "cuda/cuda_kernel.h"
#include "cuda/cuda_kernel_image.h"
#include "cuda/library.h"

namespace adjoint::cuda {
namespace {

// The functions of NVRTC that are called here.
#define ADJOINT_NVRTC_FUNCTIONS(X) \
  X(nvrtcAddNameExpression)        \
  X(nvrtcCompileProgram)           \
  X(nvrtcCreateProgram)            \
  X(nvrtcDestroyProgram)           \
  X(nvrtcGetCUBIN)                 \
  X(nvrtcGetCUBINSize)             \
  X(nvrtcGetErrorString)           \
  X(nvrtcGetLoweredName)           \
  X(nvrtcGetNumSupportedArchs)     \
  X(nvrtcGetPTX)                   \
  X(nvrtcGetPTXSize)               \
  X(nvrtcGetProgramLog)            \
  X(nvrtcGetProgramLogSize)        \
  X(nvrtcGetSupportedArchs)        \
  X(nvrtcVersion)

struct Nvrtc {
  explicit Nvrtc(const Library& library) : path(library.path()) {
#define ADJOINT_LOAD(name) name = library.function<decltype(::name)>(#name);
    ADJOINT_NVRTC_FUNCTIONS(ADJOINT_LOAD)
#undef ADJOINT_LOAD
  }
  std::string path;
#define ADJOINT_MEMBER(name) decltype(&::name) name;
  ADJOINT_NVRTC_FUNCTIONS(ADJOINT_MEMBER)
#undef ADJOINT_MEMBER
};

// Loaded at first use.
const Library& nvrtcFile() {
  static const auto* file = new Library({"libnvrtc.so." + std::to_string(CUDART_VERSION / 1000)});
  return *file;
}
// Throws where it is not to be had.
const Nvrtc& library() {
  static const auto* l = new Nvrtc(nvrtcFile());
  return *l;
}

void check(nvrtcResult status, const char* call) {
  if (status != NVRTC_SUCCESS) {
    fail(ErrorKind::device, "nvrtc: %s: %s", call, library().nvrtcGetErrorString(status));
  }
}
#define ADJOINT_NVRTC(call) check((call), #call)

// A program that is destroyed with its scope.
class Program {
 public:
  explicit Program(const std::string& source) {
    ADJOINT_NVRTC(library().nvrtcCreateProgram(&program_, source.c_str(), "cudaKernel.cu", 0,
                                               nullptr, nullptr));
  }
  ~Program() { library().nvrtcDestroyProgram(&program_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  operator nvrtcProgram() const { return program_; }

 private:
  nvrtcProgram program_ = nullptr;
};

// The newest architecture that this NVRTC knows and the device can run.
int architectureFor(int capability) {
  int count = 0, best = 0;
  ADJOINT_NVRTC(library().nvrtcGetNumSupportedArchs(&count));
  std::vector<int> known(static_cast<size_t>(count));
  ADJOINT_NVRTC(library().nvrtcGetSupportedArchs(known.data()));
  for (int architecture : known) {
    if (architecture <= capability && architecture > best) best = architecture;
  }
  if (best == 0) {
    fail(ErrorKind::device, "nvrtc: expected a compiler for compute capability %d.%d, got %s",
         capability / 10, capability % 10, library().path.c_str());
  }
  return best;
}

// CUDA's headers (cuda_fp16.h …), where the toolkit that NVRTC is of has them; else "".
std::string headersFolder() {
  namespace fs = std::filesystem;
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(library().nvrtcCompileProgram), &info)) return "";
  const fs::path folder = fs::path(info.dli_fname).parent_path().parent_path() / "include";
  std::error_code ignored;
  return fs::is_directory(folder, ignored) ? folder.string() : "";
}

}  // namespace

std::string kernelCompiler() {
  if (!nvrtcFile().isLoaded()) return nvrtcFile().reason();
  int major = 0, minor = 0;
  ADJOINT_NVRTC(library().nvrtcVersion(&major, &minor));
  return nvrtcFile().path() + " " + std::to_string(major) + "." + std::to_string(minor);
}

KernelImage compileImage(const std::string& source, const std::string& name,
                         const std::vector<std::string>& options, int capability) {
  const Nvrtc& nvrtc = library();
  const int architecture = architectureFor(capability);
  const bool isMachineCode = architecture == capability;
  std::vector<std::string> all = {std::string("--gpu-architecture=") +
                                  (isMachineCode ? "sm_" : "compute_") +
                                  std::to_string(architecture)};
  if (const std::string headers = headersFolder(); !headers.empty()) {
    all.push_back("--include-path=" + headers);
  }
  all.insert(all.end(), options.begin(), options.end());
  std::vector<const char*> pointers;
  for (const std::string& option : all) pointers.push_back(option.c_str());

  const Program program(source);
  ADJOINT_NVRTC(nvrtc.nvrtcAddNameExpression(program, name.c_str()));
  const nvrtcResult status =
      nvrtc.nvrtcCompileProgram(program, static_cast<int>(pointers.size()), pointers.data());
  if (status != NVRTC_SUCCESS) {
    size_t size = 0;
    ADJOINT_NVRTC(nvrtc.nvrtcGetProgramLogSize(program, &size));
    std::string log(size, '\0');
    ADJOINT_NVRTC(nvrtc.nvrtcGetProgramLog(program, log.data()));
    log.resize(log.find_last_not_of(std::string("\0\n", 2)) + 1);
    failToCompile(name, log.empty() ? nvrtc.nvrtcGetErrorString(status) : log);
  }
  const char* symbol = nullptr;
  ADJOINT_NVRTC(nvrtc.nvrtcGetLoweredName(program, name.c_str(), &symbol));
  KernelImage image{{}, isMachineCode, symbol};
  size_t size = 0;
  ADJOINT_NVRTC(isMachineCode ? nvrtc.nvrtcGetCUBINSize(program, &size)
                              : nvrtc.nvrtcGetPTXSize(program, &size));
  image.code.resize(size);
  ADJOINT_NVRTC(isMachineCode ? nvrtc.nvrtcGetCUBIN(program, image.code.data())
                              : nvrtc.nvrtcGetPTX(program, image.code.data()));
  return image;
}

namespace {

#if CUDART_VERSION >= 12080
// The runtime has no function for this in CUDA 12; its kernels are the driver's.
std::vector<size_t> parametersOf(cudaKernel_t kernel) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found;
  ADJOINT_CUDA(cudaGetDriverEntryPointByVersion("cuKernelGetParamInfo", &address, 12040,
                                                cudaEnableDefault, &found));
  if (!address) {
    fail(ErrorKind::device,
         "cudaKernel: expected a driver of CUDA 12.4 or later, got an older one");
  }
  const auto getInfo = reinterpret_cast<decltype(&::cuKernelGetParamInfo)>(address);
  std::vector<size_t> bytes;
  size_t offset = 0, size = 0;
  // The first index that is not there is an invalid value.
  while (getInfo(reinterpret_cast<CUkernel>(kernel), bytes.size(), &offset, &size) ==
         CUDA_SUCCESS) {
    bytes.push_back(size);
  }
  return bytes;
}
#endif

}  // namespace

CompiledKernel compileKernel(const std::string& source, const std::string& name,
                             const std::vector<std::string>& options, int capability) {
  const KernelImage image = compileImage(source, name, options, capability);
#if CUDART_VERSION >= 12080
  cudaLibrary_t loaded = nullptr;
  cudaKernel_t kernel = nullptr;
  ADJOINT_CUDA(
      cudaLibraryLoadData(&loaded, image.code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  ADJOINT_CUDA(cudaLibraryGetKernel(&kernel, loaded, image.symbol.c_str()));
  CompiledKernel compiled{reinterpret_cast<const void*>(kernel), parametersOf(kernel)};
  // Beyond 48 KiB a kernel must ask for what it takes; it may take all that its own arrays leave.
  cudaFuncAttributes attributes{};
  int device = 0, most = 0;
  ADJOINT_CUDA(cudaFuncGetAttributes(&attributes, compiled.function));
  ADJOINT_CUDA(cudaGetDevice(&device));
  ADJOINT_CUDA(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  most -= static_cast<int>(attributes.sharedSizeBytes);
  ADJOINT_CUDA(
      cudaFuncSetAttribute(compiled.function, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  return compiled;
#else
  fail(ErrorKind::device, "cudaKernel: expected an addon built with CUDA 12.8 or later, got %d.%d",
       CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
#endif
}

void queueKernel(const CompiledKernel& kernel, const backend::CudaKernelLaunch& launch,
                 void** parameters, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
  config.blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
  config.dynamicSmemBytes = launch.sharedBytes;
  config.stream = stream;
  ADJOINT_CUDA(cudaLaunchKernelExC(&config, kernel.function, parameters));
}

}  // namespace adjoint::cuda
