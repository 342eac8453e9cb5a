#include "cuda/attention_graph.h"
#include "cuda/cudnn_graph.h"

namespace adjoint::cuda {
namespace {

namespace fe = cudnn_frontend;
namespace graph = cudnn_frontend::graph;
using Tensor = std::shared_ptr<graph::Tensor_attributes>;

// The numbers of a graph's tensors.
enum Uid : int64_t { kQ = 1, kK, kV, kY, kLse, kDy, kDq, kDk, kDv };

template <class T>
void describe(T& t, const AttentionTensor& source, Uid uid, const char* name) {
  t.set_uid(uid).set_name(name);
  t.set_dim({source.size, source.size + 4}).set_stride({source.stride, source.stride + 4});
}

Tensor input(graph::Graph& g, const AttentionTensor& source, Uid uid, const char* name) {
  graph::Tensor_attributes t;
  describe(t, source, uid, name);
  return g.tensor(t);
}
void output(const Tensor& t, const AttentionTensor& source, Uid uid, const char* name) {
  describe(*t, source, uid, name);
  t->set_output(true);
}

AttentionTensor statisticsOf(const FusedAttention& a) {
  const int64_t b = a.q.size[0], h = a.q.size[1], t = a.q.size[2];
  return {a.lse, {b, h, t, 1}, {h * t, t, 1, 1}};
}

template <class Attributes>
Attributes attributesOf(const FusedAttention& a) {
  Attributes attributes;
  attributes.set_attn_scale(a.scale);
  if (a.isCausal) {
    // Query i sees the keys up to i.
    attributes.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
    attributes.set_diagonal_band_right_bound(0);
  }
  return attributes;
}

void addForward(graph::Graph& g, const FusedAttention& a) {
  const Tensor q = input(g, a.q, kQ, "q"), k = input(g, a.k, kK, "k"), v = input(g, a.v, kV, "v");
  auto attributes = attributesOf<graph::SDPA_attributes>(a);
  attributes.set_generate_stats(true);
  const auto [y, lse] = g.sdpa(q, k, v, attributes);
  output(y, a.y, kY, "y");
  output(lse, statisticsOf(a), kLse, "lse");
  lse->set_data_type(fe::DataType_t::FLOAT);
}

void addBackward(graph::Graph& g, const FusedAttention& a) {
  const Tensor q = input(g, a.q, kQ, "q"), k = input(g, a.k, kK, "k"), v = input(g, a.v, kV, "v"),
               y = input(g, a.y, kY, "y"), dy = input(g, a.dy, kDy, "dy");
  const Tensor lse = input(g, statisticsOf(a), kLse, "lse");
  lse->set_data_type(fe::DataType_t::FLOAT);
  auto attributes = attributesOf<graph::SDPA_backward_attributes>(a);
  attributes.set_deterministic_algorithm(a.isDeterministic);
  const auto [dq, dk, dv] = g.sdpa_backward(q, k, v, y, dy, lse, attributes);
  output(dq, a.dq, kDq, "dq");
  output(dk, a.dk, kDk, "dk");
  output(dv, a.dv, kDv, "dv");
}

}  // namespace

std::string attentionPlanKey(const FusedAttention& a) {
  std::string key;
  const auto add = [&](const auto& value) {
    key.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const bool isDeterministic = a.isBackward && a.isDeterministic;
  add(static_cast<int64_t>(a.dtype) << 3 | isDeterministic << 2 | a.isBackward << 1 | a.isCausal);
  add(a.scale);
  for (const AttentionTensor* t : {&a.q, &a.k, &a.v, &a.y, &a.dy, &a.dq, &a.dk, &a.dv}) {
    if (!a.isBackward && t == &a.dy) break;
    add(t->size);
    add(t->stride);
  }
  return key;
}

std::unique_ptr<CudnnPlan> planAttention(const FusedAttention& a, const CudnnTarget& target,
                                         int64_t workspaceLimit, std::string* reason) {
  const auto add = [&](graph::Graph& g) { a.isBackward ? addBackward(g, a) : addForward(g, a); };
  return planGraph({a.dtype, add, {}}, target, workspaceLimit, reason);
}

void runAttentionPlan(const CudnnPlan& plan, const FusedAttention& a, cudnnHandle_t handle,
                      void* workspace) {
  std::unordered_map<int64_t, void*> pointers = {
      {kQ, a.q.data}, {kK, a.k.data}, {kV, a.v.data}, {kY, a.y.data}, {kLse, a.lse}};
  if (a.isBackward) {
    pointers.insert({{kDy, a.dy.data}, {kDq, a.dq.data}, {kDk, a.dk.data}, {kDv, a.dv.data}});
  }
  runPlan(plan, "attention", std::move(pointers), handle, workspace);
}

}  // namespace adjoint::cuda
