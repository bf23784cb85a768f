// Threads that help the calling thread through one operation.

#pragma once

#include <cstdint>
#include <functional>

namespace pmexp {

// Calls work(i) for every i in [0, count), each once, on the calling thread and up to `threads` - 1 others.
// Any number of threads may call it at once, also in a process forked from one that has used it.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& work);

}  // namespace pmexp
