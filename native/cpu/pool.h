// The thread pool: one for the process, shared by all environments (worker_threads).
#pragma once
#include <cstdint>
#include <string>

namespace adjoint::cpu {

// A non-owning reference to a callable (begin, end): no allocation, no virtual call per element.
class RangeFunction {
 public:
  template <class F>
  RangeFunction(const F& f)  // NOLINT: implicit on purpose
      : object_(&f), call_([](const void* o, int64_t begin, int64_t end) {
          (*static_cast<const F*>(o))(begin, end);
        }) {}
  void operator()(int64_t begin, int64_t end) const { call_(object_, begin, end); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t, int64_t);
};

// Calls body(begin, end) over [0, n) in chunks of `grain` (the last one shorter). The chunks depend
// on n and grain alone, never on the number of threads; which thread takes which is open. The
// caller takes part; one chunk, a nested call or a busy pool runs here and now. The first exception
// that a chunk throws (first by its place, not by time) is rethrown after all have ended; chunks
// behind it that had not begun are left out.
void parallelFor(int64_t n, int64_t grain, RangeFunction body);

int poolThreads();             // the caller included
int threadsHere();             // that parallelFor would use: one within a chunk
std::string poolThreadsWhy();  // where that number comes from, for people
// 1 <= n <= kMaxPoolThreads. Joins the threads; the next parallelFor starts as many as it says.
void setPoolThreads(int n);
constexpr int kMaxPoolThreads = 1024;
void stopPool();  // joins all; a later parallelFor starts them again

}  // namespace adjoint::cpu
