#include "emulation/async_copy.h"

#include <deque>
#include <vector>

#include "emulation/block.h"

namespace adjoint::emulation {
namespace {

struct ThreadCopies {
  uint64_t blockSerial = 0;
  int closed = 0;  // groups
  std::deque<std::pair<int, AsyncCopy>> queue;
};

ThreadCopies& ofThread() {
  static auto* threads = new std::vector<ThreadCopies>(1024);
  ThreadCopies& copies = (*threads)[running.thread->linear];
  if (copies.blockSerial != running.blockSerial) {
    copies = ThreadCopies();
    copies.blockSerial = running.blockSerial;
  }
  return copies;
}

}  // namespace

void queueCopy(const AsyncCopy& copy) {
  ThreadCopies& copies = ofThread();
  copies.queue.emplace_back(copies.closed, copy);
}

void closeCopyGroup() {
  ofThread().closed++;
}

bool takeCopy(int pending, AsyncCopy* copy) {
  ThreadCopies& copies = ofThread();
  // A copy of no group yet is not waited for.
  if (copies.queue.empty() || copies.queue.front().first >= copies.closed - pending) return false;
  *copy = copies.queue.front().second;
  copies.queue.pop_front();
  return true;
}

}  // namespace adjoint::emulation
