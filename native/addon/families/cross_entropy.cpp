#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"crossEntropy",
     [](Call& c) {
       const View& logits = c.input();
       const View& target = c.input();
       const View& loss = c.output();
       const View& lse = c.output();
       backend::crossEntropy(loss, lse, logits, target, c.integer());
     }},
    {"crossEntropyMean",
     [](Call& c) {
       const View& logits = c.input();
       const View& target = c.input();
       const View& loss = c.output();
       const View& lse = c.output();
       const View& rate = c.output();
       backend::crossEntropyMean(loss, rate, lse, logits, target, c.integer());
     }},
    {"crossEntropyBackward",
     [](Call& c) {
       const View& dy = c.input();
       const View& logits = c.input();
       const View& lse = c.input();
       const View& target = c.input();
       const View& dlogits = c.output();
       backend::crossEntropyBackward(dlogits, dy, logits, lse, target, c.integer());
     }},
});

}  // namespace
}  // namespace adjoint
