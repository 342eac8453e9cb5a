// Convolutions by cuDNN. Plans are kept by shape, and for as long as the process lives: a captured
// graph may hold kernels of theirs.
#include <optional>
#include <string>
#include <unordered_map>

#include "cuda/conv2d.h"
#include "cuda/conv2d_graph.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {
namespace {

// The most that a plan may ask for, and what it may where memory is short.
constexpr int64_t kWorkspaceLimits[] = {int64_t(256) << 20, int64_t(16) << 20, 0};

std::string keyOf(const Conv2d& c, int64_t workspaceLimit) {
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
  add(workspaceLimit);
  return key;
}

// The plan for it, or nullptr: also where there is no cuDNN, which is found out once. Locked by the
// caller.
const Conv2dPlan* planFor(const Conv2d& c, int64_t workspaceLimit, cudaStream_t stream) {
  static auto* plans = new std::unordered_map<std::string, std::unique_ptr<Conv2dPlan>>;
  static bool isMissing = false;
  if (isMissing || !cudnnLibrary().isLoaded()) return nullptr;
  const std::string key = keyOf(c, workspaceLimit);
  if (const auto known = plans->find(key); known != plans->end()) return known->second.get();
  Conv2dTarget target{};
  try {
    target.handle = cudnnHandle(stream);
  } catch (const Error&) {
    isMissing = true;
    return nullptr;
  }
  target.capability = computeCapability();
  std::string reason;
  auto plan = planConv2d(c, target, workspaceLimit, &reason);
  return plans->emplace(key, std::move(plan)).first->second.get();
}

}  // namespace

std::string convolutionLibrary() {
  const Library& library = cudnnLibrary();
  return library.isLoaded() ? library.path() + " " + cudnnVersion() : library.reason();
}

bool libraryTakes(const Conv2d& c) {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  return planFor(c, kWorkspaceLimits[0], stream()) != nullptr;
}

void convolveByLibrary(const Conv2d& c, cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  const Conv2dPlan* plan = nullptr;
  std::optional<Workspace> workspace;
  for (int64_t limit : kWorkspaceLimits) {
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
