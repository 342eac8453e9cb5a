// Reductions: the reduced axes are those that have size 1 in the output.
#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"reduce",
     [](Call& c) {
       View x = c.input();
       View y = c.output();
       backend::reduce(c.opcode<ReduceOp>(), y, x);
     }},
    {"argReduce",
     [](Call& c) {
       View x = c.input();
       View y = c.output();
       auto op = c.opcode<ArgOp>();
       backend::argReduce(op, y, x, c.axis(x.ndim));
     }},
});

}  // namespace
}  // namespace adjoint
