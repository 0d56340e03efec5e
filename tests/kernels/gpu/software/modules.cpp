// Modules: PTX, which Python makes a shared object of, and the kernels in it.
#include "modules.h"

#include <dlfcn.h>

#include <cstring>
#include <map>
#include <regex>
#include <set>

using namespace software;

struct CUlib_st {
    void *code = nullptr;
    std::map<std::string, Kernel *> kernels;
};

namespace software {

static int (*loader)(const char *image, char *path, size_t size) = nullptr;
static std::set<CUlibrary> libraries;
static std::set<const Kernel *> kernels;

const Kernel *kernel_of(CUfunction function) {
    const Kernel *kernel = (const Kernel *)function;
    return kernels.count(kernel) ? kernel : nullptr;
}

static size_t width_of(const std::string &type) {
    return std::stoul(type.substr(type.find_first_of("0123456789"))) / 8;
}

// Returns the bytes of each parameter of each kernel in the text.
static std::map<std::string, std::vector<size_t>> entries_of(const std::string &ptx) {
    static const std::regex parameter(
        R"(\.param\s+(?:\.align\s+\d+\s+)?\.([a-z]+\d+)\s+[^,\[]*?(?:\[(\d+)\])?\s*(?:,|$))");
    std::map<std::string, std::vector<size_t>> found;
    for (size_t at = 0; (at = ptx.find(".entry", at)) != std::string::npos;) {
        const size_t start = ptx.find_first_not_of(" \t\n", at + 6);
        const size_t open = ptx.find_first_of("( \t\n", start);
        const size_t first = ptx.find('(', open), last = ptx.find(')', first);
        if (start == std::string::npos || last == std::string::npos) break;
        const std::string list = ptx.substr(first + 1, last - first - 1);
        std::vector<size_t> &sizes = found[ptx.substr(start, open - start)];
        for (std::sregex_iterator one(list.begin(), list.end(), parameter), end; one != end; ++one)
            sizes.push_back(width_of((*one)[1]) * ((*one)[2].matched ? std::stoul((*one)[2]) : 1));
        at = last;
    }
    return found;
}

static CUresult load(CUlibrary *library, const void *image) {
    const char *text = (const char *)image;
    if (!strstr(text, ".version"))
        return refuse(CUDA_ERROR_INVALID_IMAGE, "a module that is no PTX");
    if (!loader) return refuse(CUDA_ERROR_NOT_INITIALIZED, "nobody makes modules of PTX");
    char path[4096] = "";
    if (loader(text, path, sizeof path))
        return refuse(CUDA_ERROR_INVALID_PTX, "a module that cannot be made: see above");
    void *code = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!code) return refuse(CUDA_ERROR_INVALID_IMAGE, dlerror());
    auto entries = entries_of(text);
    std::lock_guard<std::recursive_mutex> guard(lock);
    CUlibrary made = new CUlib_st;
    made->code = code;
    for (auto &[name, sizes] : entries) {
        Function run = (Function)dlsym(code, name.c_str());
        if (!run) return refuse(CUDA_ERROR_INVALID_IMAGE, "a module without its kernel " + name);
        made->kernels[name] = new Kernel{name, run, sizes, made};
        kernels.insert(made->kernels[name]);
    }
    libraries.insert(made);
    *library = made;
    return CUDA_SUCCESS;
}

// Its code stays where it is: pending launches go on.
static CUresult unload(CUlibrary library) {
    if (!libraries.erase(library))
        return refuse(CUDA_ERROR_INVALID_HANDLE, "a module is unloaded that is not there");
    for (auto &[name, kernel] : library->kernels) kernels.erase(kernel);
    return CUDA_SUCCESS;
}

static CUresult get(void **kernel, CUlibrary library, const char *name) {
    if (!libraries.count(library)) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such module");
    auto found = library->kernels.find(name);
    if (found == library->kernels.end()) return CUDA_ERROR_NOT_FOUND;
    *kernel = found->second;
    return CUDA_SUCCESS;
}

static CUresult attribute(int *value, CUfunction_attribute which, CUfunction function) {
    if (!kernel_of(function)) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such kernel");
    static const std::map<int, int> values = {
        {CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 0},
        {CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, 0},
        {CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, 0},
        {CU_FUNC_ATTRIBUTE_NUM_REGS, 32},
        {CU_FUNC_ATTRIBUTE_PTX_VERSION, 90},
        {CU_FUNC_ATTRIBUTE_BINARY_VERSION, 90},
        {CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 48 << 10},
    };
    auto found = values.find(which);
    if (found == values.end())
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "attribute of a kernel");
    *value = found->second;
    return CUDA_SUCCESS;
}

}  // namespace software

// loader: writes the path of the shared object of a module's PTX; called without the lock, because
// it takes Python's.
EXPORT void software_set_loader(int (*new_loader)(const char *image, char *path, size_t size)) {
    loader = new_loader;
}

static CUresult may_load() {
    ENTER();
    return CUDA_SUCCESS;
}

API cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *, void **, unsigned int,
                      CUlibraryOption *, void **, unsigned int) {
    if (CUresult code = may_load()) return code;
    return load(library, image);
}

API cuLibraryUnload(CUlibrary library) {
    ENTER();
    return unload(library);
}

API cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    ENTER();
    return get((void **)kernel, library, name);
}

API cuLibraryGetModule(CUmodule *module, CUlibrary library) {
    ENTER();
    *module = (CUmodule)library;
    return libraries.count(library) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

API cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    ENTER();
    *function = (CUfunction)kernel;
    return kernel_of(*function) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

API cuKernelGetLibrary(CUlibrary *library, CUkernel kernel) {
    ENTER();
    const Kernel *found = kernel_of((CUfunction)kernel);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    *library = found->library;
    return CUDA_SUCCESS;
}

API cuKernelGetAttribute(int *value, CUfunction_attribute which, CUkernel kernel, CUdevice) {
    ENTER();
    return attribute(value, which, (CUfunction)kernel);
}

API cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function) {
    ENTER();
    return attribute(value, which, function);
}

API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int, CUjit_option *, void **) {
    if (CUresult code = may_load()) return code;
    return load((CUlibrary *)module, image);
}

API cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

API cuModuleUnload(CUmodule module) {
    ENTER();
    return unload((CUlibrary)module);
}

API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER();
    return get((void **)function, (CUlibrary)module, name);
}
