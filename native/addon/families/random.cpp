// Random numbers: the generator is a native slot, so that a replayed call draws new numbers.
#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"random",
     [](Call& c) {
       View y = c.output();
       auto op = c.opcode<RandomOp>();
       double a = c.number(), b = c.number();
       int generator = static_cast<int>(c.integer());
       backend::random(op, y, a, b, c.environment().drawRandom(generator, y.numel()));
     }},
    {"randperm",
     [](Call& c) {
       View y = c.output();
       int generator = static_cast<int>(c.integer());
       backend::randperm(y, c.environment().drawRandom(generator, y.numel()));
     }},
    {"dropout",
     [](Call& c) {
       View x = c.input();
       View y = c.output(), state = c.output();
       double p = c.number();
       int generator = static_cast<int>(c.integer());
       backend::writeRandomState(state, c.environment().drawRandom(generator, x.numel()));
       backend::dropout(y, x, p, state);
     }},
    {"dropoutBackward",
     [](Call& c) {
       View dy = c.input(), state = c.input();
       View dx = c.output();
       backend::dropout(dx, dy, c.number(), state);
     }},
});

}  // namespace
}  // namespace adjoint
