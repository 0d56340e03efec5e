// The device and its one context, errors, counts, and the table of all that is offered.
#include "driver.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <time.h>

using namespace software;

struct CUctx_st {
    int held;
};

namespace software {

std::recursive_mutex lock;
Counts counts = {};

static const char NAME[] = "software device (no GPU)";
static bool is_begun = false;
static CUctx_st primary = {0};
static thread_local std::vector<CUcontext> current;
static CUresult lost = CUDA_SUCCESS;
static std::string last_error;

struct Failure {
    uint64_t after = 0, times = 0;
    CUresult code = CUDA_SUCCESS;
};
static std::map<std::string, Failure> failures;

uint64_t clock_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

CUresult refuse(CUresult code, const std::string &text) {
    const char *name = "?";
    cuGetErrorName(code, &name);
    last_error = text + " (" + name + ")";
    fprintf(stderr, "software device: %s\n", last_error.c_str());
    return code;
}

CUresult lose(CUresult code, const std::string &text) {
    lost = code;
    return refuse(code, text);
}

CUresult entered(bool needs_context) {
    if (!is_begun) return CUDA_ERROR_NOT_INITIALIZED;
    if (!needs_context) return CUDA_SUCCESS;
    if (current.empty() || !current.back())
        return refuse(CUDA_ERROR_INVALID_CONTEXT, "a call on a thread without a context");
    return lost;
}

CUresult injected(const char *kind) {
    auto found = failures.find(kind);
    if (found == failures.end()) return CUDA_SUCCESS;
    Failure &failure = found->second;
    if (failure.after) return failure.after--, CUDA_SUCCESS;
    const CUresult code = failure.code;
    if (!--failure.times) failures.erase(found);
    return code;
}

static const std::map<CUdevice_attribute, int> ATTRIBUTES = {
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 0x7FFFFFFF},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 0},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 0},
    {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0},
    {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 0},
    {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0},
};

struct Named {
    CUresult code;
    const char *name, *text;
};
static const Named ERRORS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "pointer does not correspond to a registered memory region"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static const Named *named(CUresult code) {
    for (const Named &one : ERRORS)
        if (one.code == code) return &one;
    return nullptr;
}

}  // namespace software

// Writes the first `count` numbers of Counts; answers how many there are.
EXPORT int software_counts(uint64_t *out, int count) {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    const int all = sizeof counts / sizeof(uint64_t);
    memcpy(out, &counts, sizeof(uint64_t) * (count < all ? count : all));
    return all;
}

// Returns `execution_ns` of Counts alone: cheap enough to ask around every launch.
EXPORT uint64_t software_execution_ns() { return counts.execution_ns; }

// Lets `times` calls of a kind fail with a code, after `after` more that do not. Kinds: allocation,
// pinned, copy, memset, launch, wait; and run, a kernel that fails while it runs.
EXPORT void software_fail(const char *kind, uint64_t after, uint64_t times, int code) {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    if (times) failures[kind] = {after, times, (CUresult)code};
    else failures.erase(kind);
}

// Returns how many calls of a kind are still to fail.
EXPORT uint64_t software_failures_left(const char *kind) {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    return failures.count(kind) ? failures[kind].times : 0;
}

// Returns what was wrong last, empty if nothing was; until the next call of the driver.
EXPORT const char *software_error() { return last_error.c_str(); }

// Gives a lost context back to tests of losing it: pending work is forgotten, errors too.
EXPORT void software_recover() {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    forget_work();
    lost = CUDA_SUCCESS;
    last_error.clear();
    failures.clear();
}

API cuInit(unsigned int) {
    is_begun = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

API cuGetErrorName(CUresult code, const char **text) {
    const Named *found = named(code);
    *text = found ? found->name : nullptr;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuGetErrorString(CUresult code, const char **text) {
    const Named *found = named(code);
    *text = found ? found->text : nullptr;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuDeviceGetCount(int *count) {
    ENTER(false);
    *count = 1;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(false);
    *device = 0;
    return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API cuDeviceGetName(char *name, int size, CUdevice) {
    ENTER(false);
    snprintf(name, size, "%s", NAME);
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid(CUuuid *uuid, CUdevice) {
    ENTER(false);
    memcpy(uuid->bytes, "software device", 16);
    return CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice) {
    ENTER(false);
    auto found = ATTRIBUTES.find(which);
    if (found == ATTRIBUTES.end())
        return refuse(CUDA_ERROR_INVALID_VALUE, "attribute " + std::to_string(which));
    *value = found->second;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    ENTER(false);
    primary.held++;
    *context = &primary;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRelease(CUdevice) {
    ENTER(false);
    return primary.held-- > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

API cuDevicePrimaryCtxGetState(CUdevice, unsigned int *flags, int *is_active) {
    ENTER(false);
    *flags = 0, *is_active = primary.held > 0;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    ENTER(false);
    *context = current.empty() ? nullptr : current.back();
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    ENTER(false);
    if (!current.empty()) current.pop_back();
    if (context) current.push_back(context);
    return CUDA_SUCCESS;
}

API cuCtxPushCurrent(CUcontext context) {
    ENTER(false);
    if (context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
    current.push_back(context);
    return CUDA_SUCCESS;
}

API cuCtxPopCurrent(CUcontext *context) {
    ENTER(false);
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = current.back();
    current.pop_back();
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    ENTER();
    *device = 0;
    return CUDA_SUCCESS;
}

// Without an entry here a caller learns that there is no such function.
#define OFFER(name) {#name, (void *)name}

void *software::entry(const char *name) {
    static const std::map<std::string, void *> table = {
        OFFER(cuInit), OFFER(cuDriverGetVersion), OFFER(cuGetErrorName), OFFER(cuGetErrorString),
        OFFER(cuDeviceGetCount), OFFER(cuDeviceGet), OFFER(cuDeviceGetName),
        OFFER(cuDeviceGetUuid), OFFER(cuDeviceGetAttribute), OFFER(cuDeviceTotalMem),
        OFFER(cuDevicePrimaryCtxRetain), OFFER(cuDevicePrimaryCtxRelease),
        OFFER(cuDevicePrimaryCtxGetState), OFFER(cuCtxGetCurrent), OFFER(cuCtxSetCurrent),
        OFFER(cuCtxPushCurrent), OFFER(cuCtxPopCurrent), OFFER(cuCtxGetDevice),
        OFFER(cuCtxSynchronize), OFFER(cuMemGetInfo), OFFER(cuMemAlloc), OFFER(cuMemFree),
        OFFER(cuMemAllocHost), OFFER(cuMemHostAlloc), OFFER(cuMemFreeHost),
        OFFER(cuMemHostRegister), OFFER(cuMemHostUnregister), OFFER(cuMemGetAddressRange),
        OFFER(cuMemcpyHtoD), OFFER(cuMemcpyHtoDAsync), OFFER(cuMemcpyDtoH),
        OFFER(cuMemcpyDtoHAsync), OFFER(cuMemcpyDtoD), OFFER(cuMemcpyDtoDAsync),
        OFFER(cuMemsetD8), OFFER(cuMemsetD8Async), OFFER(cuMemsetD32), OFFER(cuMemsetD32Async),
        OFFER(cuStreamCreate), OFFER(cuStreamCreateWithPriority), OFFER(cuStreamDestroy),
        OFFER(cuStreamSynchronize), OFFER(cuStreamQuery), OFFER(cuStreamWaitEvent),
        OFFER(cuStreamGetCtx), OFFER(cuStreamIsCapturing), OFFER(cuStreamGetFlags),
        OFFER(cuEventCreate), OFFER(cuEventDestroy), OFFER(cuEventRecord), OFFER(cuEventQuery),
        OFFER(cuEventSynchronize), OFFER(cuEventElapsedTime), OFFER(cuLibraryLoadData),
        OFFER(cuLibraryUnload), OFFER(cuLibraryGetKernel), OFFER(cuLibraryGetModule),
        OFFER(cuKernelGetFunction), OFFER(cuKernelGetLibrary), OFFER(cuKernelGetAttribute),
        OFFER(cuFuncGetAttribute), OFFER(cuModuleLoadData), OFFER(cuModuleLoadDataEx),
        OFFER(cuModuleUnload), OFFER(cuModuleGetFunction), OFFER(cuLaunchKernel),
        OFFER(cuLaunchKernelEx), OFFER(cuGetProcAddress),
    };
    auto found = table.find(name);
    return found == table.end() ? nullptr : found->second;
}

// NVIDIA's runtime compiler looks for tables that no header describes, and goes on without them.
API cuGetExportTable(const void **table, const CUuuid *) {
    *table = nullptr;
    return CUDA_ERROR_NOT_FOUND;
}

API cuGetProcAddress(const char *name, void **function, int, cuuint64_t,
                     CUdriverProcAddressQueryResult *status) {
    *function = entry(name);
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
