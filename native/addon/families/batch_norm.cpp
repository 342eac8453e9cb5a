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
       const View* batches = c.optionalInPlace();
       a.y = c.output();
       a.mean = c.output();
       a.rstd = c.output();
       a.momentum = c.number();
       a.eps = c.number();
       a.relu = c.flag();
       backend::batchNorm(a);
       if (batches) {
         const Operand one{true, {}, Scalar::of(int64_t{1})};
         backend::binary(BinaryOp::add, *batches, {false, *batches, {}}, one, DType::int64);
       }
     }},
    {"batchNormBackward",
     [](Call& c) {
       backend::BatchNormBackwardArgs a;
       a.dy = c.input();
       a.x = c.input();
       a.weight = c.optionalInput();
       a.bias = c.optionalInput();
       a.mean = c.input();
       a.rstd = c.input();
       a.dx = c.output();
       a.dweight = c.output();
       a.dbias = c.output();
       a.relu = c.flag();
       backend::batchNormBackward(a);
     }},
});

}  // namespace
}  // namespace adjoint
