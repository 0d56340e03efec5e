// A launch on the host, for the C++ that `modules.py` writes: blocks one after the other, each with
// shared memory of its own. Where a kernel has barriers, each thread of a block is a fiber, which
// runs up to the next barrier and then waits for the others; otherwise a thread is a plain call.
// Interleaved, fibers of some blocks are also switched between their accesses to memory.
#include <algorithm>
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
struct Order;
struct Fiber {
    jmp_buf *scheduler;
    Body *body;
    void **params;
    Thread here;
    State state;
    bool is_begun;
    int site; // of the barrier where it waits
    int code;
    u32 accesses; // to memory, until it lets others run
    Order *draws;
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

// Before each access to memory that others see, where threads are interleaved: some now and then
// let all others run, after few accesses more often than after many.
[[gnu::noinline]] static void let_others_run(Fiber *fiber) {
    u64 drawn = fiber->draws->draw();
    fiber->accesses = (drawn >> 8 & 255) >> (drawn & 15);
    leave(fiber, READY);
}
static inline void touch_at(const Thread &here) {
    if (__builtin_expect(here.fiber->accesses-- == 0, 0)) let_others_run(here.fiber);
}

// The threads of as many blocks as run at a time.
struct Fibers {
    u32 threads;
    u64 stack_bytes;
    u8 *stacks;
    jmp_buf scheduler;
    std::vector<Fiber> all;

    Fibers(Body *body, void **params, u32 threads, u32 blocks, Order *draws)
        : threads(threads), stack_bytes(threads * blocks * STACK_BYTES), all(threads * blocks) {
        stacks = (u8 *)mmap(0, stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) stop(OUT_OF_FIBERS);
        for (Fiber &fiber : all) {
            u64 low = (u64)&fiber & 0xFFFFFFFF, high = (u64)&fiber >> 32;
            fiber = Fiber{};
            fiber.scheduler = &scheduler, fiber.body = body, fiber.params = params;
            fiber.draws = draws, fiber.state = DONE;
            getcontext(&fiber.beginning);
            fiber.beginning.uc_stack.ss_sp = stacks + (&fiber - all.data()) * STACK_BYTES;
            fiber.beginning.uc_stack.ss_size = STACK_BYTES;
            makecontext(&fiber.beginning, (void (*)())live, 2, (u32)low, (u32)high);
        }
    }
    ~Fibers() { munmap(stacks, stack_bytes); }

    void begin(u32 slot, Thread here) {
        for (here.thread = 0; here.thread < threads; here.thread++) {
            Fiber &fiber = all[slot * threads + here.thread];
            here.fiber = &fiber;
            fiber.here = here, fiber.state = READY, fiber.accesses = 0;
        }
    }

    // Let the threads of a block go on where all wait, each warp at one barrier.
    // Answers whether all of them are done.
    bool go_on(u32 slot) {
        Fiber *block = &all[slot * threads];
        u32 counts[3] = {};
        for (u32 i = 0; i < threads; i++) counts[block[i].state]++;
        if (counts[READY] || !counts[WAITING]) return !counts[READY];
        if (counts[DONE]) stop(BARRIER_MISSED);
        for (u32 i = 0; i < threads; i++) {
            if (block[i].site != block[i / WARP * WARP].site) stop(BARRIER_MISSED);
            block[i].state = READY;
        }
        return false;
    }
};

// How a kernel is run.
enum Way {
    CALLED,     // threads are calls: the kernel has no barrier
    MEETING,    // threads are fibers, which run from barrier to barrier
    INTERLEAVED // and are switched at accesses to memory, some blocks at a time
};
static const u32 BLOCKS_AT_A_TIME = 4;

struct Run {
    Body *body;
    void **params;
    const Launch &launch;
    u64 shared_bytes;
    std::vector<u8> memory; // the blocks' shared memories, each at a multiple of 128
    Order blocks;

    Run(Body *body, void **params, const Launch &launch, u64 shared_bytes)
        : body(body), params(params), launch(launch), shared_bytes((shared_bytes + 127) & ~127ULL),
          memory(this->shared_bytes * BLOCKS_AT_A_TIME + 127), blocks(launch.seed, launch.blocks[0]) {
        if (launch.seed) blocks.shuffle();
    }

    Thread first_of(u32 block, u32 slot) {
        u64 shared = (((u64)memory.data() + 127) & ~127ULL) + slot * shared_bytes;
        leave_unwritten((void *)shared, shared_bytes);
        return Thread{0, launch.threads[0], block, launch.blocks[0], shared, 0};
    }

    void call() {
        Order order(~launch.seed, launch.threads[0]);
        for (u32 block : blocks.items) {
            Thread here = first_of(block, 0);
            if (launch.seed) order.shuffle();
            for (u32 thread : order.items) {
                here.thread = thread;
                body(params, here);
            }
        }
    }

    void meet(bool is_interleaved) {
        const u32 threads = launch.threads[0], count = launch.blocks[0];
        const u32 at_a_time = is_interleaved ? std::min(count, BLOCKS_AT_A_TIME) : 1;
        Order order(~launch.seed, threads * at_a_time);
        Fibers fibers(body, params, threads, at_a_time, &order);
        for (u32 first = 0; first < count; first += at_a_time) {
            for (u32 slot = 0; slot < at_a_time && first + slot < count; slot++) {
                fibers.begin(slot, first_of(blocks.items[first + slot], slot));
            }
            for (bool is_over = false; !is_over;) {
                if (launch.seed) order.shuffle();
                for (u32 i : order.items) {
                    if (fibers.all[i].state != READY) continue;
                    resume(&fibers.all[i]);
                    if (fibers.all[i].code) stop(fibers.all[i].code);
                }
                is_over = true;
                for (u32 slot = 0; slot < at_a_time; slot++) is_over &= fibers.go_on(slot);
            }
        }
    }
};

// Run a kernel; shared_bytes: what it declares; threads_max: of a block, what it allows.
static int run_launch(Body *body, Way way, void **params, const Launch *launch, u64 shared_bytes,
                      u32 threads_max) {
    bool is_line = true;
    for (int i = 1; i < 3; i++) is_line &= launch->blocks[i] == 1 && launch->threads[i] == 1;
    if (!is_line || !launch->blocks[0] || launch->blocks[0] > 0x7FFFFFFF || !launch->threads[0] ||
        launch->threads[0] > threads_max) {
        return BAD_LAUNCH;
    }
    try {
        Run run(body, params, *launch, shared_bytes + launch->shared_bytes);
        if (way == CALLED) {
            run.call();
        } else {
            run.meet(way == INTERLEAVED);
        }
    } catch (const Stopped &stopped) {
        return stopped.code;
    }
    return 0;
}
