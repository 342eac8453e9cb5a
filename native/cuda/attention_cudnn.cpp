// Fused attention by cuDNN. Plans are kept by shape, and for as long as the process lives: a
// captured graph may hold kernels of theirs.
#include <optional>
#include <string>
#include <unordered_map>

#include "cuda/attention_graph.h"
#include "cuda/per_device.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {
namespace {

// A deterministic backward pass on Hopper holds the scores of all heads in half precision: beyond
// this, our own kernels take it.
constexpr int64_t kWorkspaceLimit = int64_t(1) << 30;
// Making a plan takes about a second. Less work is not worth one, and where the shapes keep
// changing the later ones get none.
constexpr double kFewestOperations = 4e9;
constexpr size_t kMostPlans = 64;
constexpr int64_t kAlignment = 16;

// What cuDNN reads with loads of 16 bytes, or nothing.
std::optional<AttentionTensor> tensorOf(const View& x) {
  const int64_t bytes = static_cast<int64_t>(itemSize(x.dtype));
  AttentionTensor t{x.data, {}, {}};
  for (int axis = 0; axis < 4; axis++) {
    t.size[axis] = x.size[axis];
    // Where there is one place alone, a stride says nothing.
    t.stride[axis] = axis == 3 ? x.stride[3] : x.size[axis] > 1 ? x.stride[axis] : x.size[3];
    if (t.size[axis] < 1 || t.stride[axis] < 1) return std::nullopt;
    if (axis < 3 && t.stride[axis] * bytes % kAlignment != 0) return std::nullopt;
  }
  const bool isAligned = reinterpret_cast<uintptr_t>(x.data) % kAlignment == 0;
  const bool isWidthFit = x.size[3] * bytes % kAlignment == 0 && x.size[3] <= 256;
  if (!isAligned || !isWidthFit || t.stride[3] != 1) return std::nullopt;
  return t;
}

// Fills in the tensors; false where one is not fit.
bool describe(FusedAttention& a, const View& q, const View& k, const View& v, const View& y,
              const View& lse, double scale, bool isCausal) {
  const auto qt = tensorOf(q), kt = tensorOf(k), vt = tensorOf(v), yt = tensorOf(y);
  const double operations = 4.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size[2]);
  if (!qt || !kt || !vt || !yt || operations < kFewestOperations) return false;
  a.dtype = q.dtype;
  a.q = *qt;
  a.k = *kt;
  a.v = *vt;
  a.y = *yt;
  a.lse = lse.data;
  a.scale = static_cast<float>(scale);
  a.isCausal = isCausal;
  return true;
}

// One device's.
struct Plans {
  std::unordered_map<std::string, std::unique_ptr<CudnnPlan>> byKey;
  bool isMissing = false;  // cuDNN, or one that takes the device
};

// The plan for it, or nullptr: also where there is no cuDNN, which is found out once. Locked by the
// caller.
const CudnnPlan* planFor(const FusedAttention& a) {
  static PerDevice<Plans> plansOf;
  auto& [plans, isMissing] = plansOf.get();
  if (isMissing || !cudnnLibrary().isLoaded()) return nullptr;
  const std::string key = attentionPlanKey(a);
  if (const auto known = plans.find(key); known != plans.end()) return known->second.get();
  if (plans.size() >= kMostPlans) return nullptr;
  CudnnTarget target{};
  try {
    target.handle = cudnnHandle(stream());
  } catch (const Error&) {
    isMissing = true;
    return nullptr;
  }
  target.capability = computeCapability();
  std::string reason;
  auto plan = planAttention(a, target, kWorkspaceLimit, &reason);
  return plans.emplace(key, std::move(plan)).first->second.get();
}

// Queues it; false where there is no plan, or no memory for its workspace.
bool run(const FusedAttention& a) {
  std::lock_guard<std::mutex> lock(cudnnMutex());
  const CudnnPlan* plan = planFor(a);
  if (!plan) return false;
  std::optional<Workspace> workspace;
  try {
    workspace.emplace(plan->workspaceBytes > 0 ? plan->workspaceBytes : 1);
  } catch (const Error& error) {
    if (error.kind != ErrorKind::outOfMemory) throw;
    return false;
  }
  runAttentionPlan(*plan, a, cudnnHandle(stream()), workspace->data());
  return true;
}

}  // namespace

bool attentionByLibrary(const View& y, const View& lse, const View& q, const View& k, const View& v,
                        double scale, bool isCausal) {
  FusedAttention a{};
  return describe(a, q, k, v, y, lse, scale, isCausal) && run(a);
}

bool attentionBackwardByLibrary(const backend::AttentionBackwardArgs& args, const View& lse,
                                bool isDeterministic) {
  FusedAttention a{};
  a.isBackward = true;
  a.isDeterministic = isDeterministic;
  if (!describe(a, args.q, args.k, args.v, args.y, lse, args.scale, args.isCausal)) return false;
  const auto dy = tensorOf(args.dy), dq = tensorOf(args.dq), dk = tensorOf(args.dk),
             dv = tensorOf(args.dv);
  if (!dy || !dq || !dk || !dv) return false;
  a.dy = *dy;
  a.dq = *dq;
  a.dk = *dk;
  a.dv = *dv;
  return run(a);
}

}  // namespace adjoint::cuda
