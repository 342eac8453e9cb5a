// contract.h's probe: what the processor reaches at best, measured now.
#include "cpu/kernels/probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "contract.h"
#include "cpu/features.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

#if defined(ADJOINT_HAS_AVX512)
namespace adjoint::cpu::amx {
extern const ProbeTable probeTable;
}
namespace adjoint::cpu::avx512bf16 {
extern const ProbeTable probeTable;
}
#endif

namespace adjoint::cpu {
namespace {

constexpr int kRounds = 15;               // the best counts: a neighbour only takes away
constexpr double kOperations = 1 << 24;   // of a chunk of multiply-adds
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

double operationsPerSecond(const ProbeTable& table) {
  const int64_t chunks = 4 * poolThreads();
  const auto steps = static_cast<int64_t>(kOperations / table.operationsPerStep);
  const double seconds = bestSeconds([&] {
    parallelFor(chunks, 1, [&](int64_t, int64_t) {
      volatile float sink = table.multiplyAdds(steps);
      static_cast<void>(sink);
    });
  });
  return table.operationsPerStep * static_cast<double>(steps * chunks) / seconds;
}

// Without a unit for bfloat16, operands are converted and multiplied as float32.
const ProbeTable& bf16ProbeTable() {
#if defined(ADJOINT_HAS_AVX512)
  if (hasFeature(Feature::amxBf16)) return amx::probeTable;
  if (hasFeature(Feature::avx512Bf16)) return avx512bf16::probeTable;
#endif
  return probeTable();
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
  values[0] = cpu::operationsPerSecond(cpu::probeTable());
  values[1] = cpu::operationsPerSecond(cpu::bf16ProbeTable());
  values[2] = cpu::copiedBytesPerSecond();
}

}  // namespace adjoint::backend
