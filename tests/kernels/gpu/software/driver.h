// A stand-in for NVIDIA's driver (libcuda), for tests: device memory is the host's, kernels are
// shared objects made from their PTX, and streams run as late, as early or as mixed as CUDA allows.
//
// What real hardware forgives by chance is an error here: memory that was freed, that is foreign or
// that a pending operation still names, a thread without a context, a call that nobody has written.
// After an operation failed the context is lost, and every later call says so, as on a device.
// Read streams.cpp for the order of work, memory.cpp for what is checked of addresses.
#pragma once

#pragma GCC visibility push(default)
#include <cuda.h>
#pragma GCC visibility pop

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" CUresult CUDAAPI
#define EXPORT extern "C" __attribute__((visibility("default")))

// How a module of modules.py is told what to run; the two agree on this.
struct Launch {
    uint32_t blocks[3];
    uint32_t threads[3];
    uint64_t shared_bytes;
    uint64_t seed;
};

namespace software {

enum Mode { LATE = 0, EARLY = 1, RANDOM = 2 };

// Read by software_counts, in this order.
struct Counts {
    uint64_t launches, copies_in, copies_out, copies_within, memsets;
    uint64_t bytes_in, bytes_out, bytes_staged;  // staged: of bytes in, from pageable memory
    uint64_t waits;           // calls that wait for the device
    uint64_t waits_in_frees;  // frees that did, see software_let_frees_wait
    uint64_t allocations, pinned_allocations, device_bytes;
    uint64_t execution_ns;  // spent in kernels, copies and memsets, and in filling memory with noise
};

// One piece of a stream's work; done in the order of its stream, after all of `after`.
struct Operation {
    const char *kind = "";
    std::vector<std::shared_ptr<Operation>> after;
    std::function<CUresult()> run;  // none: a mark of an event
    std::vector<uint64_t> names;    // bases of the device's and pinned allocations that it uses
    CUstream stream = nullptr;
    bool is_done = false;
    uint64_t done_ns = 0;  // on the clock of execution
};
using Work = std::shared_ptr<Operation>;

// Of the device or of pinned host memory.
struct Allocation {
    uint64_t base = 0, bytes = 0, mapped = 0, mapped_bytes = 0;
    bool is_live = false, is_pinned = false, is_registered = false;
};

extern std::recursive_mutex lock;  // held by every call, and while work is done
extern Counts counts;

uint64_t clock_ns();
uint64_t draw();  // of the schedule's seed
uint64_t launch_seed();

// Errors. `refuse` says what is wrong, on stderr and in software_error, and returns the code.
CUresult refuse(CUresult code, const std::string &text);
CUresult lose(CUresult code, const std::string &text);  // the same, and the context is lost
CUresult entered(bool needs_context = true);  // what a call has to answer at once, or success
CUresult injected(const char *kind);          // what software_fail asked for, or success

// Memory.
Allocation *find(uint64_t address, bool is_pinned);  // live, address within or at its end
CUresult check(uint64_t address, uint64_t bytes, const char *what, Allocation **found);
bool is_device(uint64_t address);
CUresult pinned(const void *address, uint64_t bytes, Allocation **found);  // null: pageable

// Streams.
CUresult enqueue(CUstream stream, Work work);
CUresult finish(const Work &work);
CUresult finish_all();
void forget_work();            // all that is not done counts as done
bool is_named(uint64_t base);  // by work that is not done

void *entry(const char *name);  // of the driver, or null

}  // namespace software

// Returns from a call that may not go on; holds the lock until the caller returns.
#define ENTER(...)                                                       \
    std::lock_guard<std::recursive_mutex> guard(software::lock);         \
    if (CUresult code = software::entered(__VA_ARGS__)) return code
