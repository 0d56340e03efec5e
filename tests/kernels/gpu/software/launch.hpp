// A launch on the host, for the C++ that `modules.py` writes: blocks one after the other, each with
// shared memory of its own. Where a kernel has barriers, each thread of a block is a fiber, which
// runs up to the next barrier and then waits for the others; otherwise a thread is a plain call.
#include <csetjmp>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

struct Launch {
    u32 blocks[3];
    u32 threads[3];
    u64 shared_bytes; // dynamic ones, behind those that the kernel declares
    u64 seed;         // of the order of blocks and threads; 0: ascending
};

struct Fiber;
struct Thread {
    u32 thread, threads, block, blocks;
    u64 shared; // address
    Fiber *fiber;
};
typedef void Body(void **params, const Thread &here);

static const u32 WARP = 32, THREADS_MAX = 1024;
static const u64 STACK_BYTES = 256 << 10; // `modules.py` refuses kernels that take more than half

enum State { READY, WAITING, DONE };
struct Fiber {
    jmp_buf *scheduler;
    Body *body;
    void **params;
    Thread here;
    State state;
    bool is_begun;
    int site; // of the barrier where it waits
    int code;
    jmp_buf place;
    ucontext_t beginning;
};

// Switching by setjmp and longjmp: ucontext's own switches ask the system each time.
[[gnu::noinline]] static void leave(Fiber *fiber, State state) {
    fiber->state = state;
    if (!_setjmp(fiber->place)) _longjmp(*fiber->scheduler, 1);
}

static inline void wait_at(const Thread &here, int site) {
    here.fiber->site = site;
    leave(here.fiber, WAITING);
}

static void live(u32 low, u32 high) {
    Fiber *fiber = (Fiber *)((u64)high << 32 | low);
    for (;;) {
        try {
            fiber->body(fiber->params, fiber->here);
        } catch (const Stopped &stopped) {
            fiber->code = stopped.code;
        }
        leave(fiber, DONE);
    }
}

[[gnu::noinline]] static void resume(Fiber *fiber) {
    if (_setjmp(*fiber->scheduler)) return;
    if (fiber->is_begun) _longjmp(fiber->place, 1);
    fiber->is_begun = true;
    setcontext(&fiber->beginning);
    __builtin_trap();
}

struct Order {
    u64 seed;
    std::vector<u32> items;

    Order(u64 first, u32 count) : seed(first), items(count) {
        for (u32 i = 0; i < count; i++) items[i] = i;
    }
    u64 draw() { // splitmix64
        u64 z = seed += 0x9E3779B97F4A7C15ULL;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
        return z ^ z >> 31;
    }
    void shuffle() {
        for (u32 i = items.size(); i > 1; i--) {
            u32 j = (unsigned __int128)draw() * i >> 64, held = items[i - 1];
            items[i - 1] = items[j], items[j] = held;
        }
    }
};

struct Fibers {
    u32 count;
    u8 *stacks;
    jmp_buf scheduler;
    std::vector<Fiber> all;

    Fibers(Body *body, void **params, u32 threads)
        : count(threads), stacks((u8 *)MAP_FAILED), all(threads) {
        if (count == 0) return;
        stacks = (u8 *)mmap(0, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) stop(OUT_OF_FIBERS);
        for (u32 i = 0; i < count; i++) {
            Fiber *fiber = &all[i];
            *fiber = Fiber{};
            fiber->scheduler = &scheduler, fiber->body = body, fiber->params = params;
            if (getcontext(&fiber->beginning)) stop(OUT_OF_FIBERS);
            fiber->beginning.uc_stack.ss_sp = stacks + i * STACK_BYTES;
            fiber->beginning.uc_stack.ss_size = STACK_BYTES;
            makecontext(&fiber->beginning, (void (*)())live, 2, (u32)(u64)fiber,
                        (u32)((u64)fiber >> 32));
        }
    }
    ~Fibers() {
        if (stacks != MAP_FAILED) munmap(stacks, count * STACK_BYTES);
    }

    // Say whether all threads are done; if not, all of them wait, each warp at one barrier.
    bool is_over() const {
        u32 waiting = 0;
        for (const Fiber &fiber : all) waiting += fiber.state == WAITING;
        if (waiting == 0) return true;
        if (waiting < count) stop(BARRIER_MISSED);
        for (u32 i = 0; i < count; i++) {
            if (all[i].site != all[i / WARP * WARP].site) stop(BARRIER_MISSED);
        }
        return false;
    }
};

static void run_blocks(Body *body, bool has_barrier, void **params, const Launch &launch,
                       u64 shared_bytes) {
    const u32 threads = launch.threads[0], blocks = launch.blocks[0];
    std::vector<u8> memory(shared_bytes + 127);
    const u64 shared = ((u64)memory.data() + 127) & ~127ULL;
    Order block_order(launch.seed, blocks), order(~launch.seed, threads);
    if (launch.seed) block_order.shuffle();
    Fibers fibers(body, params, has_barrier ? threads : 0);
    for (u32 block : block_order.items) {
        leave_unwritten((void *)shared, shared_bytes);
        for (Fiber &fiber : fibers.all) {
            u32 thread = &fiber - fibers.all.data();
            fiber.here = Thread{thread, threads, block, blocks, shared, &fiber};
            fiber.state = READY;
        }
        do {
            if (launch.seed) order.shuffle();
            for (u32 thread : order.items) {
                if (!has_barrier) {
                    body(params, Thread{thread, threads, block, blocks, shared, 0});
                } else if (fibers.all[thread].state != DONE) {
                    resume(&fibers.all[thread]);
                    if (fibers.all[thread].code) stop(fibers.all[thread].code);
                }
            }
        } while (has_barrier && !fibers.is_over());
    }
}

// Run a kernel; shared_bytes: what it declares; threads_max: of a block, what it allows.
static int run_launch(Body *body, bool has_barrier, void **params, const Launch *launch,
                      u64 shared_bytes, u32 threads_max) {
    bool is_line = true;
    for (int i = 1; i < 3; i++) is_line &= launch->blocks[i] == 1 && launch->threads[i] == 1;
    if (!is_line || !launch->blocks[0] || launch->blocks[0] > 0x7FFFFFFF || !launch->threads[0] ||
        launch->threads[0] > threads_max) {
        return BAD_LAUNCH;
    }
    try {
        run_blocks(body, has_barrier, params, *launch, shared_bytes + launch->shared_bytes);
    } catch (const Stopped &stopped) {
        return stopped.code;
    }
    return 0;
}
