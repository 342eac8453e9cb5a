// Random numbers: the generator is a native slot, so that a replayed call draws new numbers.
#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"random",
     [](Call& c) {
       const View& y = c.output();
       auto op = c.opcode<RandomOp>();
       double a = c.number(), b = c.number();
       int generator = static_cast<int>(c.integer());
       backend::random(op, y, a, b, c.environment().drawRandom(generator, y.numel()));
     }},
    {"randperm",
     [](Call& c) {
       const View& y = c.output();
       int generator = static_cast<int>(c.integer());
       backend::randperm(y, c.environment().drawRandom(generator, y.numel()));
     }},
    {"dropout",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       const View& state = c.output();
       double p = c.number();
       int generator = static_cast<int>(c.integer());
       backend::writeRandomState(state, c.environment().drawRandom(generator, x.numel()));
       backend::dropout(y, x, p, state);
     }},
    {"dropoutBackward",
     [](Call& c) {
       const View& dy = c.input();
       const View& state = c.input();
       const View& dx = c.output();
       backend::dropout(dx, dy, c.number(), state);
     }},
});

}  // namespace
}  // namespace adjoint
