#include "../call.h"

namespace adjoint {
namespace {

// Outputs lie as [B, T, H, D] in memory, so that the heads of a position can be joined without a
// copy; the kernels see [B, H, T, D].
View headsFirst(const View& x) {
  View y = x;
  if (y.ndim == 4) {
    std::swap(y.size[1], y.size[2]);
    std::swap(y.stride[1], y.stride[2]);
  }
  return y;
}

const Family family({
    {"attention",
     [](Call& c) {
       const View& q = c.input();
       const View& k = c.input();
       const View& v = c.input();
       const View* mask = c.optionalInput();
       const View y = headsFirst(c.output());
       const View& lse = c.output();
       const double scale = c.number();
       backend::attention(y, lse, q, k, v, mask, scale, c.flag());
     }},
    {"attentionBackward",
     [](Call& c) {
       backend::AttentionBackwardArgs a;
       a.dy = c.input();
       a.q = c.input();
       a.k = c.input();
       a.v = c.input();
       a.mask = c.optionalInput();
       a.y = c.input();
       a.lse = c.input();
       a.dq = headsFirst(c.output());
       a.dk = headsFirst(c.output());
       a.dv = headsFirst(c.output());
       a.scale = c.number();
       a.isCausal = c.flag();
       backend::attentionBackward(a);
     }},
});

}  // namespace
}  // namespace adjoint
