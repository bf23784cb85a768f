#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pmexp {
namespace {

// One parallel_for call. It lives on the caller's stack: the caller leaves once no helper is inside.
struct Loop {
    const std::function<void(int64_t)>& work;
    const int64_t count;
    std::atomic<int64_t> next{0};
    int wanted;       // helpers that may still join; guarded by the pool's mutex
    int helpers = 0;  // helpers inside; guarded by the pool's mutex

    Loop(const std::function<void(int64_t)>& work, int64_t count, int wanted)
        : work(work), count(count), wanted(wanted) {}

    void take_part() {
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
    }
};

class Pool {
public:
    void run(Loop& loop) {
        const int helpers = loop.wanted;  // helpers count it down from now on
        {
            const std::lock_guard lock(mutex_);
            add_threads(helpers);
            loops_.push_back(&loop);
        }
        for (int i = 0; i < helpers; ++i) work_.notify_one();
        loop.take_part();
        std::unique_lock lock(mutex_);
        loops_.erase(std::remove(loops_.begin(), loops_.end(), &loop), loops_.end());
        left_.wait(lock, [&] { return loop.helpers == 0; });
    }

private:
    // With too few threads, for want of memory or by a limit, the caller does more of the work itself.
    void add_threads(int wanted) {
        if (threads_ >= wanted) return;
        sigset_t all, before;  // signals stay with the threads that Python knows
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (; threads_ < wanted; ++threads_) std::thread(&Pool::help, this).detach();
        } catch (const std::system_error&) {
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void help() {
        std::unique_lock lock(mutex_);
        for (;;) {
            Loop* loop = open_loop();
            if (loop == nullptr) {
                work_.wait(lock);
                continue;
            }
            --loop->wanted;
            ++loop->helpers;
            lock.unlock();
            loop->take_part();
            lock.lock();
            if (--loop->helpers == 0) left_.notify_all();
        }
    }

    Loop* open_loop() const {
        for (Loop* loop : loops_) {
            if (loop->wanted > 0) return loop;
        }
        return nullptr;
    }

    std::mutex mutex_;
    std::condition_variable work_;  // a loop was opened
    std::condition_variable left_;  // the last helper left a loop
    std::vector<Loop*> loops_;
    int threads_ = 0;
};

// Made at the first use and never destroyed: its threads outlive main(). A forked child has none of them and
// perhaps a locked mutex, so it forgets the pool and makes another.
std::atomic<Pool*> shared_pool{nullptr};

// Runs fn(data) on each thread of a team: the entry point of GNU's OpenMP runtime, which LLVM's has too.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);
std::atomic<GompParallel> gomp_parallel{nullptr};

[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
    shared_pool = nullptr;
    gomp_parallel = nullptr;
});

Pool& pool() {
    Pool* current = shared_pool.load();
    if (current != nullptr) return *current;
    Pool* made = new Pool;
    if (shared_pool.compare_exchange_strong(current, made)) return *made;
    delete made;
    return *current;
}

}  // namespace

void use_openmp(void* function) { gomp_parallel = reinterpret_cast<GompParallel>(function); }

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& work) {
    Loop loop(work, count, static_cast<int>(std::min<int64_t>(threads, count)) - 1);
    const GompParallel on_team = gomp_parallel;
    if (loop.wanted <= 0) {
        loop.take_part();
    } else if (on_team != nullptr) {
        // Always the whole team: GNU's runtime ends threads that a smaller team leaves out.
        on_team([](void* data) { static_cast<Loop*>(data)->take_part(); }, &loop, threads, 0);
    } else {
        pool().run(loop);
    }
}

}  // namespace pmexp
