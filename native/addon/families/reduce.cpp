// Reductions: the reduced axes are those that have size 1 in the output.
#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"reduce",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       backend::reduce(c.opcode<ReduceOp>(), y, x);
     }},
    {"argReduce",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       auto op = c.opcode<ArgOp>();
       backend::argReduce(op, y, x, c.axis(x.ndim));
     }},
});

}  // namespace
}  // namespace adjoint
