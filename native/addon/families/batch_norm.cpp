#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"batchNorm",
     [](Call& c) {
       backend::BatchNormArgs a;
       a.x = c.input();
       a.weight = c.optionalInput();
       a.bias = c.optionalInput();
       a.runningMean = c.optionalInPlace();
       a.runningVar = c.optionalInPlace();
       a.y = c.output();
       a.mean = c.output();
       a.rstd = c.output();
       a.momentum = c.number();
       a.eps = c.number();
       backend::batchNorm(a);
     }},
    {"batchNormBackward",
     [](Call& c) {
       View dy = c.input(), x = c.input();
       const View* weight = c.optionalInput();
       View mean = c.input(), rstd = c.input();
       View dx = c.output(), dweight = c.output(), dbias = c.output();
       backend::batchNormBackward(dx, dweight, dbias, dy, x, weight, mean, rstd);
     }},
});

}  // namespace
}  // namespace adjoint
