// Memory of the device and pinned memory of the host: each allocation alone between pages that
// nobody may touch, so that whoever runs over its end, or comes when it was freed, is stopped.
#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace software {

static const uint64_t REGION_BYTES = 1ull << 43;  // of addresses; each is given out once
static const uint64_t ALIGN = 256;
static const uint64_t PAGE = 4096;
static uint64_t memory_bytes = 8ull << 30;
static bool do_frees_wait = false;

// Addresses that are taken from one end to the other and never again.
struct Region {
    bool is_pinned;
    uint64_t start = 0, next = 0;
    std::map<uint64_t, Allocation> by_base;

    bool holds(uint64_t address) const {
        return start && start <= address && address < start + REGION_BYTES;
    }

    Allocation *take(uint64_t bytes) {
        if (!start) {
            const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            void *found = mmap(nullptr, REGION_BYTES, PROT_NONE, flags, -1, 0);
            if (found == MAP_FAILED) return nullptr;
            start = next = (uint64_t)found;
        }
        // The end of the last page is the end of the allocation, as near as alignment allows.
        const uint64_t whole = (bytes + ALIGN - 1) / ALIGN * ALIGN;
        const uint64_t mapped_bytes = (whole + PAGE - 1) / PAGE * PAGE;
        if (next + mapped_bytes + 2 * PAGE > start + REGION_BYTES) return nullptr;
        const uint64_t mapped = next + PAGE;
        next = mapped + mapped_bytes;
        if (mprotect((void *)mapped, mapped_bytes, PROT_READ | PROT_WRITE)) return nullptr;
        Allocation made;
        made.base = mapped + mapped_bytes - whole;
        made.bytes = bytes, made.mapped = mapped, made.mapped_bytes = mapped_bytes;
        made.is_live = true, made.is_pinned = is_pinned;
        const uint64_t began = clock_ns();
        uint64_t state = draw() | 1;
        for (uint64_t *word = (uint64_t *)mapped, *end = word + mapped_bytes / 8; word < end;) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            *word++ = state ^ state >> 29;
        }
        counts.execution_ns += clock_ns() - began;
        return &(by_base[made.base] = made);
    }

    void give(Allocation *gone) {
        madvise((void *)gone->mapped, gone->mapped_bytes, MADV_DONTNEED);
        mprotect((void *)gone->mapped, gone->mapped_bytes, PROT_NONE);
        gone->is_live = false;
    }

    // The last allocation, live or not, that begins at or before an address.
    Allocation *before(uint64_t address) {
        auto after = by_base.upper_bound(address);
        return after == by_base.begin() ? nullptr : &std::prev(after)->second;
    }
};

static Region device = {false, 0, 0, {}}, host = {true, 0, 0, {}};
static std::map<uint64_t, Allocation> registered;  // pageable memory that was locked later

bool is_device(uint64_t address) { return device.holds(address); }

Allocation *find(uint64_t address, bool is_pinned) {
    Allocation *found = (is_pinned ? host : device).before(address);
    if (found && found->is_live && address <= found->base + found->bytes) return found;
    if (!is_pinned) return nullptr;
    auto after = registered.upper_bound(address);
    if (after == registered.begin()) return nullptr;
    found = &std::prev(after)->second;
    return address < found->base + found->bytes ? found : nullptr;
}

CUresult check(uint64_t address, uint64_t bytes, const char *what, Allocation **found) {
    Allocation *one = find(address, false);
    if (one && address + bytes <= one->base + one->bytes) {
        if (found) *found = one;
        return CUDA_SUCCESS;
    }
    one = device.before(address);
    const char *why = !device.holds(address) || !one ? "foreign memory"
                      : !one->is_live                ? "memory that was freed"
                                                     : "more than its allocation";
    return lose(CUDA_ERROR_ILLEGAL_ADDRESS, std::string(what) + " of " + std::to_string(bytes) +
                                                " bytes names " + why);
}

CUresult pinned(const void *address, uint64_t bytes, Allocation **found) {
    *found = nullptr;
    const uint64_t start = (uint64_t)address;
    Allocation *one = find(start, true);
    if (one && start < one->base + one->bytes) {
        if (start + bytes > one->base + one->bytes)
            return refuse(CUDA_ERROR_INVALID_VALUE, "a copy runs over the end of pinned memory");
        *found = one;
    } else if (host.holds(start)) {
        return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "a copy names pinned memory that was freed");
    }
    return CUDA_SUCCESS;
}

static CUresult take(Region &region, uint64_t bytes, uint64_t *address) {
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (!region.is_pinned && counts.device_bytes + bytes > memory_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    Allocation *made = region.take(bytes);
    if (!made) return CUDA_ERROR_OUT_OF_MEMORY;
    if (!region.is_pinned) counts.device_bytes += bytes;
    (region.is_pinned ? counts.pinned_allocations : counts.allocations)++;
    *address = made->base;
    return CUDA_SUCCESS;
}

// A device would wait here without a word; the owner must have waited before, unless it is allowed.
static CUresult give(Region &region, uint64_t address) {
    Allocation *found = region.before(address);
    const char *kind = region.is_pinned ? "pinned memory" : "device memory";
    if (!found || found->base != address || !found->is_live)
        return lose(CUDA_ERROR_ILLEGAL_ADDRESS, std::string(kind) + " is freed that is not there");
    if (is_named(address) && do_frees_wait) {
        counts.waits_in_frees++;
        if (CUresult code = finish_all()) return code;
    }
    if (is_named(address))
        return lose(CUDA_ERROR_ILLEGAL_ADDRESS,
                    std::string(kind) + " of " + std::to_string(found->bytes) +
                        " bytes is freed while an operation that was not waited for names it");
    if (!region.is_pinned) counts.device_bytes -= found->bytes;
    region.give(found);
    return CUDA_SUCCESS;
}

}  // namespace software

using namespace software;

// Takes the bytes of memory that the device has from now on.
EXPORT void software_set_memory(uint64_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    memory_bytes = bytes;
}

// Whether who frees what is in use waits for all work, as on a device, or is told that it is wrong.
EXPORT void software_let_frees_wait(int is_let) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    do_frees_wait = is_let;
}

API cuMemGetInfo(size_t *free, size_t *total) {
    ENTER();
    *total = memory_bytes;
    *free = memory_bytes - std::min(memory_bytes, counts.device_bytes);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem(size_t *bytes, CUdevice) {
    ENTER(false);
    *bytes = memory_bytes;
    return CUDA_SUCCESS;
}

API cuMemAlloc(CUdeviceptr *address, size_t bytes) {
    ENTER();
    if (CUresult code = injected("allocation")) return code;
    uint64_t found = 0;
    CUresult code = take(device, bytes, &found);
    if (!code) *address = found;
    return code;
}

API cuMemFree(CUdeviceptr address) {
    ENTER();
    return address ? give(device, address) : CUDA_SUCCESS;
}

API cuMemHostAlloc(void **address, size_t bytes, unsigned int) {
    ENTER();
    if (CUresult code = injected("pinned")) return code;
    uint64_t found = 0;
    CUresult code = take(host, bytes, &found);
    if (!code) *address = (void *)found;
    return code;
}

API cuMemAllocHost(void **address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

API cuMemFreeHost(void *address) {
    ENTER();
    return give(host, (uint64_t)address);
}

API cuMemHostRegister(void *address, size_t bytes, unsigned int) {
    ENTER();
    const uint64_t start = (uint64_t)address;
    if (host.holds(start) || device.holds(start) || find(start, true))
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    Allocation made;
    made.base = start, made.bytes = bytes;
    made.is_live = made.is_pinned = made.is_registered = true;
    registered[start] = made;
    return CUDA_SUCCESS;
}

API cuMemHostUnregister(void *address) {
    ENTER();
    if (!registered.count((uint64_t)address)) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    if (is_named((uint64_t)address))
        return lose(CUDA_ERROR_ILLEGAL_ADDRESS,
                    "memory is unlocked while an operation that was not waited for names it");
    registered.erase((uint64_t)address);
    return CUDA_SUCCESS;
}

API cuMemGetAddressRange(CUdeviceptr *base, size_t *bytes, CUdeviceptr address) {
    ENTER();
    Allocation *found = find(address, false);
    if (!found) return CUDA_ERROR_NOT_FOUND;
    if (base) *base = found->base;
    if (bytes) *bytes = found->bytes;
    return CUDA_SUCCESS;
}
