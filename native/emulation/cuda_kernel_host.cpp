// The twin of native/cuda/cuda_kernel_nvrtc.cpp: the source is compiled by the host's compiler into
// a library of its own, which sees the emulated machine through pointers. Of CUDA it has indices,
// __syncthreads, static shared memory and the functions of math.h; of the options, -D.
#include <dlfcn.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "cuda/cuda_kernel.h"
#include "emulation/emulation.h"

namespace adjoint::cuda {
namespace {

namespace fs = std::filesystem;

// One block runs at a time, so a static array is as good as shared memory.
constexpr const char* kBefore = R"(
#include <math.h>
#include <stddef.h>
#include <utility>
struct AdjointIndex { unsigned x, y, z; };
struct AdjointMachine {
  const AdjointIndex *thread, *block, *threads, *blocks;
  void (*barrier)(const char* file, int line);
};
static const AdjointMachine* adjointMachine;
#define threadIdx (*adjointMachine->thread)
#define blockIdx (*adjointMachine->block)
#define blockDim (*adjointMachine->threads)
#define gridDim (*adjointMachine->blocks)
#define __syncthreads() adjointMachine->barrier(__FILE__, __LINE__)
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#line 1 "cudaKernel.cu"
)";
constexpr const char* kAfter = R"(
#define ADJOINT_EXPORT extern "C" __attribute__((visibility("default")))
template <class... P>
int adjointSizes(void (*)(P...), size_t* bytes, int most) {
  const size_t all[] = {sizeof(P)..., 0};
  for (int i = 0; i < int(sizeof...(P)) && i < most; i++) bytes[i] = all[i];
  return sizeof...(P);
}
template <class... P, size_t... I>
void adjointCall(void (*kernel)(P...), void** parameters, std::index_sequence<I...>) {
  kernel(*static_cast<P*>(parameters[I])...);
}
template <class... P>
void adjointCall(void (*kernel)(P...), void** parameters) {
  adjointCall(kernel, parameters, std::index_sequence_for<P...>());
}
ADJOINT_EXPORT int adjointParameters(size_t* bytes, int most) {
  return adjointSizes(ADJOINT_KERNEL, bytes, most);
}
ADJOINT_EXPORT void adjointRun(const AdjointMachine* machine, void** parameters) {
  adjointMachine = machine;
  adjointCall(ADJOINT_KERNEL, parameters);
}
)";

struct Machine {
  const void *thread, *block, *threads, *blocks;
  void (*barrier)(const char* file, int line);
};
const Machine kMachine = {&emulation::threadIdx, &emulation::blockIdx, &emulation::blockDim,
                          &emulation::gridDim, [](const char* file, int line) {
                            emulation::barrier({file, line});
                          }};

using Run = void(const void* machine, void** parameters);

struct Queued final : emulation::QueuedKernel {
  void run() override {
    std::vector<void*> parameters;
    for (auto& value : values) parameters.push_back(value.data());
    function(&kMachine, parameters.data());
  }
  Run* function;
  std::vector<std::vector<unsigned char>> values;
};

std::string quoted(const std::string& word) {
  std::string out = "'";
  for (char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string textOf(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

// A folder that is removed with its scope.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "adjointXXXXXX").string();
    if (!mkdtemp(pattern.data()))
      fail(ErrorKind::device, "cudaKernel: expected a folder for files");
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

}  // namespace

CompiledKernel compileKernel(const std::string& source, const std::string& name,
                             const std::vector<std::string>& options, int) {
  const Folder folder;
  const std::string text = folder.file("kernel.cpp"), code = folder.file("kernel.so"),
                    log = folder.file("log");
  std::ofstream(text) << kBefore << source << "\n#line 1 \"launch\"\n"
                      << "#define ADJOINT_KERNEL " << name << "\n"
                      << kAfter;
  // Hidden, since the arrays of one template in two libraries would otherwise be one.
  std::string command = "c++ -std=c++17 -O1 -shared -fPIC -fvisibility=hidden -w";
  for (const std::string& option : options) {
    if (option.rfind("-D", 0) == 0) command += " " + quoted(option);
  }
  command += " -o " + quoted(code) + " " + quoted(text) + " 2> " + quoted(log);
  if (std::system(command.c_str()) != 0) failToCompile(name, textOf(log));
  void* loaded = dlopen(code.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!loaded) failToCompile(name, dlerror());
  const auto sizes = reinterpret_cast<int (*)(size_t*, int)>(dlsym(loaded, "adjointParameters"));
  CompiledKernel compiled{dlsym(loaded, "adjointRun"), {}};
  compiled.parameterBytes.resize(static_cast<size_t>(sizes(nullptr, 0)));
  sizes(compiled.parameterBytes.data(), static_cast<int>(compiled.parameterBytes.size()));
  return compiled;
}

std::string kernelCompiler() {
  return "the host's";
}

void queueKernel(const CompiledKernel& kernel, const backend::CudaKernelLaunch& launch,
                 void** parameters, cudaStream_t stream) {
  auto queued = std::make_unique<Queued>();
  queued->function = reinterpret_cast<Run*>(const_cast<void*>(kernel.function));
  for (size_t i = 0; i < kernel.parameterBytes.size(); i++) {
    const auto* value = static_cast<const unsigned char*>(parameters[i]);
    queued->values.emplace_back(value, value + kernel.parameterBytes[i]);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
  config.blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
  config.dynamicSmemBytes = launch.sharedBytes;
  config.stream = stream;
  ADJOINT_CUDA(emulation::enqueueKernel(config, queued.release()));
}

}  // namespace adjoint::cuda
