// Convolutions by cuDNN. Plans are kept by shape, and for as long as the process lives: a captured
// graph may hold kernels of theirs.
#include <optional>
#include <string>
#include <unordered_map>

#include "cuda/conv2d.h"
#include "cuda/conv2d_graph.h"
#include "cuda/per_device.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {
namespace {

// What a plan may ask for where memory is short.
constexpr int64_t kShortLimits[] = {int64_t(16) << 20, 0};

std::string keyOf(const Conv2d& c, int64_t limit) {
  std::string key;
  const auto add = [&](int64_t value) {
    key.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  add(static_cast<int64_t>(c.op) << 16 | static_cast<int64_t>(c.dtype) << 8 | c.channelsLast << 3 |
      (c.bias != nullptr) << 2 | c.relu << 1 | c.tf32);
  for (const Conv2dTensor* t : {&c.x, &c.w, &c.y}) {
    for (int64_t size : t->size) add(size);
  }
  const backend::Conv2dShape& s = c.shape;
  for (int64_t value : {s.strideH, s.strideW, s.padH, s.padW, s.dilationH, s.dilationW}) add(value);
  add(limit);
  return key;
}

// One device's. Locked with cudnnMutex.
struct Plans {
  std::unordered_map<std::string, std::unique_ptr<CudnnPlan>> byKey;
  std::string refusal;  // why cuDNN is loaded and yet refuses this device
};
PerDevice<Plans> plansOf;

// The plan for it, or nullptr: also where there is no cuDNN, which is found out once. Locked by the
// caller.
const CudnnPlan* planFor(const Conv2d& c, int64_t limit, cudaStream_t stream) {
  auto& [plans, refusal] = plansOf.get();
  if (!refusal.empty() || !cudnnLibrary().isLoaded()) return nullptr;
  const std::string key = keyOf(c, limit);
  if (const auto known = plans.find(key); known != plans.end()) return known->second.get();
  CudnnTarget target{};
  try {
    target.handle = cudnnHandle(stream);
  } catch (const Error& error) {
    refusal = error.what();
    return nullptr;
  }
  target.capability = computeCapability();
  std::string reason;
  auto plan = planConv2d(c, target, limit, &reason);
  return plans.emplace(key, std::move(plan)).first->second.get();
}

}  // namespace

std::string convolutionLibrary() {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  const Library& library = cudnnLibrary();
  if (!library.isLoaded()) return library.reason();
  const std::string& refusal = plansOf.get().refusal;
  return library.path() + " " + cudnnVersion() + (refusal.empty() ? "" : ": " + refusal);
}

bool hasConvolutionLibrary() {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  return cudnnLibrary().isLoaded() && plansOf.get().refusal.empty();
}

bool libraryTakes(const Conv2d& c) {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  return planFor(c, workspaceLimit(c), stream()) != nullptr;
}

void convolveByLibrary(const Conv2d& c, cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  const CudnnPlan* plan = nullptr;
  std::optional<Workspace> workspace;
  for (int64_t limit : {workspaceLimit(c), kShortLimits[0], kShortLimits[1]}) {
    plan = planFor(c, limit, stream);
    if (!plan) continue;
    try {
      workspace.emplace(plan->workspaceBytes > 0 ? plan->workspaceBytes : 1);
      break;
    } catch (const Error& error) {
      if (error.kind != ErrorKind::outOfMemory) throw;
    }
  }
  if (!plan || !workspace) {
    fail(ErrorKind::outOfMemory, "conv2d: no memory for the workspace of cuDNN's plan");
  }
  runConv2dPlan(*plan, c, cudnnHandle(stream), workspace->data());
}

}  // namespace adjoint::cuda
