#include "emulation/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "shared/poison.h"
#if defined(ADJOINT_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(ADJOINT_FIBER_ASSEMBLY)
// (void** saveStackPointer, void* stackPointer): the registers that a callee must keep go on the
// old stack, then the same six come off the new one. About 8 ns a switch; swapcontext makes a
// system call and takes 230.
asm(R"(
.text
.globl adjointEmulationSwitch
.hidden adjointEmulationSwitch
.type adjointEmulationSwitch, @function
adjointEmulationSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size adjointEmulationSwitch, .-adjointEmulationSwitch
)");
extern "C" void adjointEmulationSwitch(void** saveStackPointer, void* stackPointer);
#endif

namespace adjoint::emulation {
namespace {

#if defined(ADJOINT_ASAN)
constexpr size_t kStackBytes = 256 << 10;  // instrumented frames are several times larger
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

// Blocks run one at a time under the emulation's lock, so one host context is enough.
struct Host {
#if defined(ADJOINT_FIBER_ASSEMBLY)
  void* stackPointer = nullptr;
#else
  ucontext_t context;
#endif
  void* fakeStack = nullptr;
  const void* stackBottom = nullptr;
  size_t stackBytes = 0;
} host;
Fiber* running = nullptr;

// AddressSanitizer must know which stack is in use; without it these are empty.
void leave(void** fakeStack, const void* bottom, size_t bytes) {
#if defined(ADJOINT_ASAN)
  __sanitizer_start_switch_fiber(fakeStack, bottom, bytes);
#endif
}
void arrive(void* fakeStack, const void** oldBottom, size_t* oldBytes) {
#if defined(ADJOINT_ASAN)
  __sanitizer_finish_switch_fiber(fakeStack, oldBottom, oldBytes);
#endif
}

}  // namespace

Fiber::Fiber(void (*body)()) : body_(body) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* mapping =
      mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  mprotect(mapping_, page, PROT_NONE);
  stack_ = mapping_ + page;
  restart();
}

Fiber::~Fiber() {
  munmap(mapping_, static_cast<size_t>(stack_ - mapping_) + kStackBytes);
}

void Fiber::restart() {
  unpoison(stack_, kStackBytes);
  fakeStack_ = nullptr;
#if defined(ADJOINT_FIBER_ASSEMBLY)
  // As if entry() had been called: six registers to pop, its address, and a return address of 0.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  stackPointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::entry, 0);
#endif
}

bool Fiber::isOnStack(const void* p) {
  const auto* byte = static_cast<const char*>(p);
  return running && byte >= running->stack_ && byte < running->stack_ + kStackBytes;
}

void Fiber::entry() {
  arrive(nullptr, &host.stackBottom, &host.stackBytes);
  while (true) {
    running->body_();
    suspend();
  }
}

void Fiber::resume() {
  running = this;
  leave(&host.fakeStack, stack_, kStackBytes);
#if defined(ADJOINT_FIBER_ASSEMBLY)
  adjointEmulationSwitch(&host.stackPointer, stackPointer_);
#else
  swapcontext(&host.context, &context_);
#endif
  arrive(host.fakeStack, nullptr, nullptr);
  running = nullptr;
}

void Fiber::suspend() {
  Fiber* self = running;
  leave(&self->fakeStack_, host.stackBottom, host.stackBytes);
#if defined(ADJOINT_FIBER_ASSEMBLY)
  adjointEmulationSwitch(&self->stackPointer_, host.stackPointer);
#else
  swapcontext(&self->context_, &host.context);
#endif
  arrive(self->fakeStack_, &host.stackBottom, &host.stackBytes);
}

}  // namespace adjoint::emulation
