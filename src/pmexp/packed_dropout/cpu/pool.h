// Threads that help the calling thread through one operation.

#pragma once

#include <cstdint>
#include <functional>

namespace pmexp {

// Makes parallel_for run on the team of an OpenMP runtime from now on; null for threads of its own.
//
// The process's numeric library (torch) keeps a team whose threads spin for a while after their work. A thread
// of ours then has to wait for a core, which costs more than a small mask takes; on that team it costs nothing.
// A forked child has lost the team, and goes back to threads of its own.
void use_openmp(void* gomp_parallel);

// Calls work(i) for every i in [0, count), each once, on the calling thread and up to `threads` - 1 others.
// Any number of threads may call it at once, also in a process forked from one that has used it.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& work);

}  // namespace pmexp
