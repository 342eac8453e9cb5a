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
       const View& dy = c.input();
       const View& x = c.input();
       const View* weight = c.optionalInput();
       const View& mean = c.input();
       const View& rstd = c.input();
       const View& dx = c.output();
       const View& dweight = c.output();
       const View& dbias = c.output();
       backend::batchNormBackward(dx, dweight, dbias, dy, x, weight, mean, rstd);
     }},
});

}  // namespace
}  // namespace adjoint
