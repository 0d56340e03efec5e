// What streams do: copies, memsets and launches, each checked when it is asked for.
//
// Pinned memory is read and written when the operation is done, so whoever writes it earlier, or
// reads it before, gets other bytes. Pageable memory is copied aside at the call, and back only
// when the operation is done, which the call waits for: as CUDA documents both.
#include "driver.h"

#include <csetjmp>
#include <csignal>
#include <cstring>

#include "modules.h"

namespace software {

static Work operation(const char *kind, std::initializer_list<Allocation *> used) {
    Work work = std::make_shared<Operation>();
    work->kind = kind;
    for (Allocation *one : used)
        if (one) work->names.push_back(one->base);
    return work;
}

static CUresult wait(const Work &work) {
    counts.waits++;
    return finish(work);
}

static CUresult copy_in(CUdeviceptr to, const void *from, uint64_t bytes, CUstream stream,
                        bool is_waited) {
    if (CUresult code = injected("copy")) return code;
    Allocation *target = nullptr, *source = nullptr;
    if (CUresult code = check(to, bytes, "a copy to the device", &target)) return code;
    if (CUresult code = pinned(from, bytes, &source)) return code;
    counts.copies_in++, counts.bytes_in += bytes;
    Work work = operation("copy in", {target, source});
    if (source) {
        work->run = [=] { return memcpy((void *)to, from, bytes), CUDA_SUCCESS; };
    } else {
        counts.bytes_staged += bytes;
        auto staged = std::make_shared<std::string>((const char *)from, bytes);
        work->run = [=] { return memcpy((void *)to, staged->data(), bytes), CUDA_SUCCESS; };
    }
    if (CUresult code = enqueue(stream, work)) return code;
    return is_waited && source ? wait(work) : CUDA_SUCCESS;
}

static CUresult copy_out(void *to, CUdeviceptr from, uint64_t bytes, CUstream stream,
                         bool is_waited) {
    if (CUresult code = injected("copy")) return code;
    Allocation *target = nullptr, *source = nullptr;
    if (CUresult code = check(from, bytes, "a copy from the device", &source)) return code;
    if (CUresult code = pinned(to, bytes, &target)) return code;
    counts.copies_out++, counts.bytes_out += bytes;
    Work work = operation("copy out", {source, target});
    work->run = [=] { return memcpy(to, (void *)from, bytes), CUDA_SUCCESS; };
    if (CUresult code = enqueue(stream, work)) return code;
    return is_waited || !target ? wait(work) : CUDA_SUCCESS;
}

static CUresult copy_within(CUdeviceptr to, CUdeviceptr from, uint64_t bytes, CUstream stream) {
    if (CUresult code = injected("copy")) return code;
    Allocation *target = nullptr, *source = nullptr;
    if (CUresult code = check(from, bytes, "a copy on the device", &source)) return code;
    if (CUresult code = check(to, bytes, "a copy on the device", &target)) return code;
    if (from < to + bytes && to < from + bytes && bytes)
        return refuse(CUDA_ERROR_INVALID_VALUE, "a copy on the device overlaps itself");
    counts.copies_within++;
    Work work = operation("copy within", {target, source});
    work->run = [=] { return memcpy((void *)to, (void *)from, bytes), CUDA_SUCCESS; };
    return enqueue(stream, work);
}

static CUresult set(CUdeviceptr to, uint32_t value, uint64_t width, uint64_t count,
                    CUstream stream) {
    if (CUresult code = injected("memset")) return code;
    Allocation *target = nullptr;
    if (CUresult code = check(to, width * count, "a memset", &target)) return code;
    if (to % width) return refuse(CUDA_ERROR_INVALID_VALUE, "a memset is not aligned");
    counts.memsets++;
    Work work = operation("memset", {target});
    work->run = [=] {
        if (width == 1) return memset((void *)to, (int)value, count), CUDA_SUCCESS;
        for (uint64_t i = 0; i < count; i++) memcpy((char *)to + i * width, &value, width);
        return CUDA_SUCCESS;
    };
    return enqueue(stream, work);
}

// Kernels. Pages around allocations cannot be touched, so an address out of bounds ends here.

static thread_local sigjmp_buf *escape = nullptr;
static thread_local uint64_t fault = 0;

static void on_fault(int, siginfo_t *info, void *) {
    if (!escape) {
        // Not ours: with the default action restored, the instruction faults again.
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    fault = (uint64_t)info->si_addr;
    siglongjmp(*escape, 1);
}

static int run_guarded(Function run, void **parameters, const Launch *launch) {
    struct sigaction ours = {}, before = {};
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigjmp_buf here;
    sigaction(SIGSEGV, &ours, &before);
    escape = &here;
    const int code = sigsetjmp(here, 1) ? -1 : run(parameters, launch);
    escape = nullptr;
    sigaction(SIGSEGV, &before, nullptr);
    return code;
}

static CUresult done(int code, const std::string &name) {
    if (!code) return CUDA_SUCCESS;
    if (code == 2) return lose(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, name + " has no fibers left");
    if (code > 0)
        return lose(CUDA_ERROR_LAUNCH_FAILED, name + " ended with " + std::to_string(code));
    char address[32];
    snprintf(address, sizeof address, "%#llx", (unsigned long long)fault);
    Allocation *near = find(fault - 1, false);
    const std::string where = near ? ", behind an allocation of " + std::to_string(near->bytes) +
                                         " bytes"
                              : is_device(fault) ? ", freed or between allocations"
                                                 : ", no memory of the device";
    return lose(CUDA_ERROR_ILLEGAL_ADDRESS, name + " touched " + address + where);
}

static CUresult launch(CUfunction function, const Launch &shape, CUstream stream, void **given) {
    if (CUresult code = injected("launch")) return code;
    const Kernel *kernel = kernel_of(function);
    if (!kernel) return refuse(CUDA_ERROR_INVALID_HANDLE, "a kernel that is not there");
    const uint64_t threads = (uint64_t)shape.threads[0] * shape.threads[1] * shape.threads[2];
    const uint64_t blocks = (uint64_t)shape.blocks[0] * shape.blocks[1] * shape.blocks[2];
    if (!threads || threads > 1024 || !blocks || shape.blocks[0] > 0x7FFFFFFF ||
        shape.blocks[1] > 0xFFFF || shape.blocks[2] > 0xFFFF || shape.shared_bytes > 48 << 10)
        return refuse(CUDA_ERROR_INVALID_VALUE, kernel->name + ": no device has such blocks");
    Work work = operation("launch", {});
    // The values are read now, as on a device; what they point at, when the kernel runs.
    std::vector<uint64_t> values;
    std::vector<size_t> places;
    for (size_t i = 0; i < kernel->sizes.size(); i++) {
        const size_t size = kernel->sizes[i], place = values.size();
        places.push_back(place);
        values.resize(place + (size + 7) / 8);
        memcpy(&values[place], given[i], size);
        for (size_t at = place; size % 8 == 0 && at < values.size(); at++) {
            if (!is_device(values[at])) continue;
            Allocation *named = nullptr;
            const std::string what = kernel->name + ", argument " + std::to_string(i);
            if (CUresult code = check(values[at], 0, what.c_str(), &named)) return code;
            work->names.push_back(named->base);
        }
    }
    counts.launches++;
    Launch final = shape;
    final.seed = launch_seed();
    work->run = [=]() mutable {
        if (CUresult code = injected("run")) return lose(code, kernel->name + " was made to fail");
        std::vector<void *> parameters;
        for (size_t place : places) parameters.push_back(&values[place]);
        return done(run_guarded(kernel->run, parameters.data(), &final), kernel->name);
    };
    return enqueue(stream, work);
}

}  // namespace software

using namespace software;

API cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
    ENTER();
    return copy_in(to, from, bytes, nullptr, true);
}

API cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER();
    return copy_in(to, from, bytes, stream, false);
}

API cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
    ENTER();
    return copy_out(to, from, bytes, nullptr, true);
}

API cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER();
    return copy_out(to, from, bytes, stream, false);
}

API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    ENTER();
    return copy_within(to, from, bytes, nullptr);
}

API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER();
    return copy_within(to, from, bytes, stream);
}

API cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
    ENTER();
    return set(to, value, 1, count, nullptr);
}

API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    ENTER();
    return set(to, value, 1, count, stream);
}

API cuMemsetD32(CUdeviceptr to, unsigned int value, size_t count) {
    ENTER();
    return set(to, value, 4, count, nullptr);
}

API cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
    ENTER();
    return set(to, value, 4, count, stream);
}

API cuLaunchKernel(CUfunction function, unsigned int blocks_x, unsigned int blocks_y,
                   unsigned int blocks_z, unsigned int threads_x, unsigned int threads_y,
                   unsigned int threads_z, unsigned int shared_bytes, CUstream stream,
                   void **parameters, void **extra) {
    ENTER();
    if (extra) return refuse(CUDA_ERROR_NOT_SUPPORTED, "arguments of a launch in a buffer");
    const Launch shape = {{blocks_x, blocks_y, blocks_z},
                          {threads_x, threads_y, threads_z}, shared_bytes, 0};
    return launch(function, shape, stream, parameters);
}

API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters,
                     void **extra) {
    ENTER();
    if (extra || config->numAttrs)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "a launch with attributes");
    const Launch shape = {{config->gridDimX, config->gridDimY, config->gridDimZ},
                          {config->blockDimX, config->blockDimY, config->blockDimZ},
                          config->sharedMemBytes, 0};
    return launch(function, shape, config->hStream, parameters);
}
