// Times of the work between two moments, for profile(fn).
#include "exports.h"

namespace adjoint {
namespace {

// mark(): notes this moment in the order of queued work; gives back the process's live bytes.
Napi::Value mark(Environment& e, const Napi::CallbackInfo& info) {
  e.moments.push_back(backend::mark());
  return Napi::Number::New(info.Env(), static_cast<double>(backend::allocatorStats().liveBytes));
}

// takeMarks(): milliseconds from the first moment noted to each; waits for the last, and forgets
// them.
Napi::Value takeMarks(Environment& e, const Napi::CallbackInfo& info) {
  std::vector<backend::Moment> moments;
  moments.swap(e.moments);
  const std::vector<double> times = backend::elapsed(moments);
  auto array = Napi::Float64Array::New(info.Env(), times.size());
  for (size_t i = 0; i < times.size(); i++) array[i] = times[i];
  return array;
}

}  // namespace

void exportProfile(Exports& exports) {
  exports.add<mark>("mark");
  exports.add<takeMarks>("takeMarks");
}

}  // namespace adjoint
