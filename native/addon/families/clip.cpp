// Clipping of gradients: one call for the norm of them all, one that clips them to it.
#include "../call.h"

namespace adjoint {
namespace {

constexpr int64_t kMaxGradients = 1 << 20;

// Gradients that next() reads: dense, of one floating-point dtype.
template <class F>
std::vector<View> gradients(int64_t count, const F& next) {
  if (count < 0 || count > kMaxGradients) fail(ErrorKind::internal, "clip: expected a count");
  std::vector<View> xs;
  xs.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) {
    const View& x = next();
    if (!isFloating(x.dtype) || !x.isContiguous() || x.dtype != (i > 0 ? xs[0] : x).dtype) {
      fail(ErrorKind::internal, "clip: expected contiguous gradients of one floating-point dtype");
    }
    xs.push_back(x);
  }
  return xs;
}

const View& checkNorm(const View& norm, bool isAlike) {
  if (!isAlike || !isFloating(norm.dtype) || norm.numel() != 1) {
    fail(ErrorKind::internal, "clip: expected a norm of the gradients' dtype");
  }
  return norm;
}

const Family family({
    {"totalNorm",
     [](Call& c) {
       const auto xs = gradients(c.integer(), [&]() -> const View& { return c.input(); });
       const View& norm = c.output();
       checkNorm(norm, xs.empty() || norm.dtype == xs[0].dtype);
       backend::totalNorm(norm, xs, c.number());
     }},
    {"clipToNorm",
     [](Call& c) {
       const int64_t count = c.integer();
       const View& norm = checkNorm(c.input(), true);
       const auto xs = gradients(count, [&]() -> const View& { return c.inPlace(); });
       backend::clipToNorm(xs, norm, c.number());
     }},
});

}  // namespace
}  // namespace adjoint
