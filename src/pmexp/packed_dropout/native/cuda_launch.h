// Launches kernels that Triton compiled, by the CUDA driver. Triton launches each for the first time, by Python,
// which then hands over what a launch takes. The few types of the driver are written down here, so that no header
// of CUDA's is needed.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <atomic>
#include <type_traits>

#include "../cpu/core.h"

namespace {

using at::Tensor;

// ---- The CUDA driver: results are 0 for success, handles are pointers. ----

struct Driver {
  int (*launch)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                void** extra) = nullptr;
  int (*current_context)(void** context) = nullptr;
  int (*is_capturing)(void* stream, int* status) = nullptr;
  bool found = false;

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) return;
    auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    found = find(launch, "cuLaunchKernel") && find(current_context, "cuCtxGetCurrent") &&
            find(is_capturing, "cuStreamIsCapturing");
  }
};

const Driver& driver() {
  static const Driver loaded;
  return loaded;
}

void* current_stream(c10::Device device) {
  if (!device.is_cuda()) return nullptr;
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

// ---- Kernels, by all that Triton specialises one for. ----

struct Kernel {
  void* function;
  void* context;  // the one that it was loaded into
  unsigned shared;    // bytes
  unsigned threads;   // of a block
  unsigned elements;  // of a block
};

constexpr int64_t kDevices = 65;  // the CPU's index is -1: a test has it launch by a driver of its own
constexpr int64_t kSlots = kDevices * 2 * 4 * 3 * 2 * 2;
std::atomic<const Kernel*> kernels[kSlots];

// As enum DType of core.h; -1 for a dtype that nothing is computed in.
int64_t dtype_code(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return pmexp::kFloat32;
    case at::kDouble: return pmexp::kFloat64;
    case at::kBFloat16: return pmexp::kBFloat16;
    case at::kHalf: return pmexp::kFloat16;
    default: return -1;
  }
}

bool aligned(const Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

// Where the kernel lies that draws a mask (or applies one) and suits these tensors; -1 where none can.
int64_t slot(const Tensor& x, const Tensor& packed, const Tensor& y, bool draws, int64_t bits) {
  const int64_t device = x.get_device() + 1, dtype = dtype_code(x), numel = x.numel();
  const int64_t width = bits == 1 ? 0 : bits == 2 ? 1 : bits == 4 ? 2 : -1;
  if (device < 0 || device >= kDevices || dtype < 0 || width < 0) return -1;
  // Triton compiles sizes of 0 and 1 in, and passes those of 2**31 and more as 64 bits.
  if (numel < 2 || numel >= (int64_t{1} << 31) || !aligned(packed) || !aligned(y)) return -1;
  return ((((device * 2 + draws) * 4 + dtype) * 3 + width) * 2 + aligned(x)) * 2 + (numel % 16 == 0);
}

// The first kernel of a kind stays; a function of 0 takes it away.
void register_kernel(const Tensor& x, const Tensor& packed, const Tensor& y, bool draws, int64_t bits,
                     int64_t function, int64_t shared, int64_t threads, int64_t elements) {
  const int64_t place = slot(x, packed, y, draws, bits);
  void* context = nullptr;
  if (place < 0 || !driver().found || driver().current_context(&context) != 0) return;
  if (function == 0) return kernels[place].store(nullptr);
  if (kernels[place].load() != nullptr) return;
  kernels[place].store(new Kernel{reinterpret_cast<void*>(function), context, static_cast<unsigned>(shared),
                                  static_cast<unsigned>(threads), static_cast<unsigned>(elements)});
}

// The kernel for these tensors; nullptr also on a thread that is not in the context of the kernel, as a new one
// is in none: whatever runs instead puts it into one.
const Kernel* find_kernel(const Tensor& x, const Tensor& packed, const Tensor& y, bool draws, int64_t bits) {
  const int64_t place = slot(x, packed, y, draws, bits);
  const Kernel* kernel = place < 0 ? nullptr : kernels[place].load(std::memory_order_acquire);
  void* context = nullptr;
  if (kernel == nullptr || driver().current_context(&context) != 0 || context != kernel->context) return nullptr;
  return kernel;
}

void launch(const Kernel& kernel, const Tensor& x, void** parameters) {
  const int64_t blocks = (x.numel() + kernel.elements - 1) / kernel.elements;
  const int error = driver().launch(kernel.function, static_cast<unsigned>(blocks), 1, 1, kernel.threads, 1, 1,
                                    kernel.shared, current_stream(x.device()), parameters, nullptr);
  TORCH_CHECK(error == 0, "packed dropout: cuLaunchKernel failed with CUDA error ", error);
}

}  // namespace
