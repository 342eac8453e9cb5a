#include "cuda/graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/free_list.h"
#include "cuda/per_device.h"

namespace adjoint {

namespace {

constexpr size_t kValueAlignment = 16;
constexpr size_t kValueBlockBytes = 4096;

enum class Phase { idle, making, renewing };

// Device memory that stays that of its owner.
class Block {
 public:
  explicit Block(size_t bytes) : bytes_(bytes), data_(backend::allocate(bytes)) {
    if (!data_) fail(ErrorKind::outOfMemory, "cuda: no memory for a graph's %zu bytes", bytes);
  }
  ~Block() {
    if (data_) backend::release(data_, bytes_);
  }
  Block(Block&& o) noexcept : bytes_(o.bytes_), data_(o.data_) { o.data_ = nullptr; }
  Block& operator=(Block&&) = delete;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  size_t bytes() const { return bytes_; }
  char* data() const { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

// What one work of the graph needs is free for the next: they run one after another.
struct Temporary {
  Block block;
  bool isTaken;
};

// Changing values: on the host as the last renewal has left them, on the device as kernels read
// them.
struct Values {
  Block block;
  std::unique_ptr<char[]> host;
  size_t used;
};
struct Value {
  size_t block, offset, bytes;
};

// Streams for captures. They are never destroyed: libraries remember a stream by its address.
cuda::PerDevice<cuda::FreeList<cudaStream_t>> captureStreams;

cudaStream_t makeStream() {
  cudaStream_t stream = nullptr;
  ADJOINT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

}  // namespace

struct backend::Graph {
  Phase phase = Phase::idle;
  cudaStream_t stream = nullptr;  // while it is made
  cudaGraphExec_t exec = nullptr;
  std::vector<Temporary> temporaries;
  std::vector<Block> constants;
  std::vector<Values> values;
  std::vector<Value> places;
  size_t renewed = 0;  // how many of the places

  // Ends the capture; the graph, or nullptr with `status` where it was spoiled.
  cudaGraph_t endCapture(cudaError_t& status);
  const void* add(const void* bytes, size_t count);
  const void* renew(const void* bytes, size_t count);
};

namespace {

thread_local backend::Graph* current = nullptr;

bool isMaking() {
  return current && current->phase == Phase::making;
}

}  // namespace

cudaGraph_t backend::Graph::endCapture(cudaError_t& status) {
  cudaGraph_t graph = nullptr;
  status = cudaStreamEndCapture(stream, &graph);
  if (status != cudaSuccess) graph = nullptr;
  captureStreams.get().give(stream);
  stream = nullptr;
  return graph;
}

const void* backend::Graph::add(const void* bytes, size_t count) {
  const size_t size =
      (std::max<size_t>(count, 1) + kValueAlignment - 1) / kValueAlignment * kValueAlignment;
  if (values.empty() || values.back().block.bytes() - values.back().used < size) {
    Block block(std::max(size, kValueBlockBytes));
    auto host = std::make_unique<char[]>(block.bytes());
    values.push_back({std::move(block), std::move(host), 0});
  }
  Values& v = values.back();
  const size_t offset = v.used;
  if (count > 0) std::memcpy(&v.host[offset], bytes, count);
  v.used += size;
  places.push_back({values.size() - 1, offset, count});
  return v.block.data() + offset;
}

const void* backend::Graph::renew(const void* bytes, size_t count) {
  if (renewed == places.size() || places[renewed].bytes != count) {
    fail(ErrorKind::internal, "cuda: expected the changing values that the graph was made with");
  }
  const Value& place = places[renewed++];
  Values& v = values[place.block];
  if (count > 0) std::memcpy(&v.host[place.offset], bytes, count);
  return v.block.data() + place.offset;
}

namespace cuda {

bool isRenewing() {
  return current && current->phase == Phase::renewing;
}

const void* changingBytes(const void* bytes, size_t count) {
  if (!current) return nullptr;
  return isMaking() ? current->add(bytes, count) : current->renew(bytes, count);
}

cudaStream_t graphStream() {
  if (!current) return nullptr;
  if (current->stream) return current->stream;
  fail(ErrorKind::internal, "cuda: expected no work while a graph's values are renewed");
}

void* takeTemporary(size_t bytes) {
  if (!isMaking()) return backend::allocate(bytes);
  Temporary* best = nullptr;
  for (Temporary& t : current->temporaries) {
    const size_t has = t.block.bytes();
    // A block that is much larger stays for those who need it.
    if (t.isTaken || has < bytes || has / 2 > bytes + kValueBlockBytes) continue;
    if (!best || has < best->block.bytes()) best = &t;
  }
  if (!best) {
    current->temporaries.push_back({Block(bytes), false});
    best = &current->temporaries.back();
  }
  best->isTaken = true;
  return best->block.data();
}

void giveBackTemporary(void* block, size_t bytes) {
  if (!isMaking()) return backend::release(block, bytes);
  for (Temporary& t : current->temporaries) {
    if (t.block.data() == block) t.isTaken = false;
  }
}

bool copyToGraph(void* target, const void* source, size_t bytes) {
  if (!current) return false;
  const cudaStream_t stream = graphStream();
  if (bytes == 0) return true;
  current->constants.emplace_back(bytes);
  void* constant = current->constants.back().data();
  uploadNow(constant, source, bytes);
  ADJOINT_CUDA(cudaMemcpyAsync(target, constant, bytes, cudaMemcpyDeviceToDevice, stream));
  return true;
}

}  // namespace cuda

namespace backend {

// ADJOINT_CUDA_GRAPHS=0 leaves captured steps to calls that are queued one by one.
Graph* beginGraph() {
  const char* setting = std::getenv("ADJOINT_CUDA_GRAPHS");
  if (setting && std::strcmp(setting, "0") == 0) return nullptr;
  auto graph = std::make_unique<Graph>();
  graph->stream = captureStreams.get().take(makeStream);
  // Relaxed: the step may allocate, and use the one stream beside this one.
  const cudaError_t status = cudaStreamBeginCapture(graph->stream, cudaStreamCaptureModeRelaxed);
  if (status != cudaSuccess) captureStreams.get().give(graph->stream);
  cuda::check(status, "cudaStreamBeginCapture");
  graph->phase = Phase::making;
  return current = graph.release();
}

void renewGraph(Graph* graph) {
  graph->phase = Phase::renewing;
  graph->renewed = 0;
  current = graph;
}

void endGraph(Graph* graph) {
  const Phase phase = graph->phase;
  current = nullptr;
  graph->phase = Phase::idle;
  if (phase != Phase::making) return;
  cudaError_t status;
  cudaGraph_t captured = graph->endCapture(status);
  cuda::check(status, "cudaStreamEndCapture");
  status = cudaGraphInstantiate(&graph->exec, captured, 0);
  cudaGraphDestroy(captured);
  cuda::check(status, "cudaGraphInstantiate");
}

size_t changingValues(const Graph* graph) {
  return graph->places.size();
}

void launchGraph(Graph* graph) {
  for (const Values& v : graph->values) {
    cuda::uploadNow(v.block.data(), v.host.get(), v.used);
  }
  ADJOINT_CUDA(cudaGraphLaunch(graph->exec, cuda::stream()));
}

void releaseGraph(Graph* graph) {
  if (current == graph) current = nullptr;
  if (graph->stream) {
    cudaError_t status;
    cudaGraph_t captured = graph->endCapture(status);
    if (captured) cudaGraphDestroy(captured);
    cudaGetLastError();  // a capture that was spoiled is no error of later calls
  }
  if (graph->exec) cudaGraphExecDestroy(graph->exec);
  delete graph;
}

}  // namespace backend
}  // namespace adjoint
