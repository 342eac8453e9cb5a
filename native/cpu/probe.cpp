// contract.h's probe: what the processor reaches at best, measured now.
#include "cpu/kernels/probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "contract.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

constexpr int kRounds = 15;               // the best counts: a neighbour only takes away
constexpr int64_t kSteps = 1 << 16;       // of a chunk of multiply-adds
constexpr size_t kCopyBytes = 64u << 20;  // beyond the caches

template <class F>
double bestSeconds(const F& body) {
  double best = 1e9;
  for (int round = 0; round <= kRounds; round++) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (round > 0) best = std::min(best, took.count());
  }
  return best;
}

double operationsPerSecond() {
  const ProbeTable& table = probeTable();
  const int64_t chunks = 4 * poolThreads();
  const double seconds = bestSeconds([&] {
    parallelFor(chunks, 1, [&](int64_t, int64_t) {
      volatile float sink = table.multiplyAdds(kSteps);
      static_cast<void>(sink);
    });
  });
  return table.operationsPerStep * kSteps * static_cast<double>(chunks) / seconds;
}

// In pieces that the threads take in turn, and in one piece a thread, which the C library may write
// past the caches: the better of both.
double copiedBytesPerSecond() {
  Workspace workspace(2 * kCopyBytes);
  char* const target = workspace.as<char>();
  char* const source = target + kCopyBytes;
  std::memset(target, 1, 2 * kCopyBytes);
  const auto n = static_cast<int64_t>(kCopyBytes);
  double seconds = 1e9;
  for (int64_t piece : {int64_t{1} << 20, (n + poolThreads() - 1) / poolThreads()}) {
    seconds =
        std::min(seconds, bestSeconds([&] {
                   parallelFor(n, piece, [&](int64_t begin, int64_t end) {
                     std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
                   });
                 }));
  }
  return 2.0 * kCopyBytes / seconds;
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void probe(const View& rates) {
  auto* const values = rates.as<double>();
  values[0] = cpu::operationsPerSecond();
  values[1] = cpu::copiedBytesPerSecond();
}

}  // namespace adjoint::backend
