// Kernels that were loaded, for those who launch them.
#pragma once

#include <string>
#include <vector>

#include "driver.h"

namespace software {

using Function = int (*)(void **parameters, const Launch *launch);

struct Kernel {
    std::string name;
    Function run;
    std::vector<size_t> sizes;  // of its parameters, in bytes
    CUlibrary library;
};

const Kernel *kernel_of(CUfunction function);  // or null

}  // namespace software
