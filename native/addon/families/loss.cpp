#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"crossEntropy",
     [](Call& c) {
       View logits = c.input(), target = c.input();
       View loss = c.output(), lse = c.output();
       backend::crossEntropy(loss, lse, logits, target, c.integer());
     }},
    {"crossEntropyBackward",
     [](Call& c) {
       View dy = c.input(), logits = c.input(), lse = c.input(), target = c.input();
       View dlogits = c.output();
       backend::crossEntropyBackward(dlogits, dy, logits, lse, target, c.integer());
     }},
});

}  // namespace
}  // namespace adjoint
