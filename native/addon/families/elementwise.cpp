// fill, copy and the elementwise families by opcode.
#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"fill",
     [](Call& c) {
       Operand value = c.operand();
       if (!value.isScalar) fail(ErrorKind::internal, "fill: expected a number");
       backend::fill(c.output(), value.scalar);
     }},
    {"copy",
     [](Call& c) {
       const View& x = c.input();
       backend::copy(c.output(), x);
     }},
    {"unary",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       auto op = c.opcode<UnaryOp>();
       backend::unary(op, y, x, c.dtype());
     }},
    {"binary",
     [](Call& c) {
       Operand a = c.operand(), b = c.operand();
       const View& y = c.output();
       auto op = c.opcode<BinaryOp>();
       backend::binary(op, y, a, b, c.dtype());
     }},
    {"where",
     [](Call& c) {
       const View& condition = c.input();
       Operand a = c.operand(), b = c.operand();
       backend::where(c.output(), condition, a, b);
     }},
    {"arange",
     [](Call& c) {
       Operand start = c.operand(), step = c.operand();
       if (!start.isScalar || !step.isScalar) {
         fail(ErrorKind::internal, "arange: expected numbers");
       }
       backend::arange(c.output(), start.scalar, step.scalar);
     }},
});

}  // namespace
}  // namespace adjoint
