// Packed dropout of a plain tensor in one call of torch's dispatcher, forward and backward in C++: what
// functional.py does by several calls of Python, which take longer than the kernels of small tensors.
//
// The kernels are those that Triton compiled. Triton launches each for the first time, by Python, which then
// hands over what a launch takes (pmexp::register_kernel); what has no kernel here goes to the operators of
// ops.py. This needs libtorch and no more: neither Python's nor CUDA's headers, so that one library serves
// any Python with the same torch. The few types of the CUDA driver are written down below.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include <dlfcn.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

int64_t dtype_code(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return 0;
    case at::kBFloat16: return 1;
    case at::kHalf: return 2;
    case at::kDouble: return 3;
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

// ---- Arithmetic of reference.py and cuda_seeds.py. ----

double kept_scale(double p, const Tensor& x) {
  if (x.scalar_type() == at::kDouble) return 1.0 / (1.0 - p);
  return static_cast<float>(1.0 / static_cast<float>(1.0 - p));
}

int64_t bits_of(double value) {
  int64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// What torch.randint(0, 2**62, (1,)) draws on CUDA: two words of Philox4x32-10.
int64_t seed_at(uint64_t seed, uint64_t offset) {
  uint32_t c0 = static_cast<uint32_t>(offset >> 2), c1 = static_cast<uint32_t>(offset >> 34), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{c0} * 0xD2511F53, right = uint64_t{c2} * 0xCD9E8D57;
    c0 = static_cast<uint32_t>(right >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(right);
    c2 = static_cast<uint32_t>(left >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(left);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return static_cast<int64_t>((uint64_t{c0} << 32 | c1) % (uint64_t{1} << 62));
}

// Advances the offset of the device's default generator and returns the one before.
int64_t advance(at::Generator& generator, int64_t increment) {
  const uint64_t offset = generator.get_offset();
  generator.set_offset(offset + increment);
  return static_cast<int64_t>(offset);
}

int64_t take_offset(c10::Device device, int64_t increment) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  return advance(generator, increment);
}

int64_t next_seed(c10::Device device) {
  if (!device.is_cuda()) return at::randint(int64_t{1} << 62, {1}, at::kLong).item<int64_t>();
  at::Generator generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  const uint64_t seed = generator.current_seed();
  return seed_at(seed, static_cast<uint64_t>(advance(generator, 4)));
}

// ---- The operators of ops.py, which run whatever is not launched here. ----

template <class Signature>
c10::TypedOperatorHandle<Signature> operator_of_ops(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor> packed_dropout(const Tensor& x, const Tensor& seed, double p, int64_t bits) {
  static const auto call =
      operator_of_ops<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, double, int64_t)>(
          "pmexp::packed_dropout");
  return call.call(x, seed, p, bits);
}

Tensor apply_packed_mask(const Tensor& x, const Tensor& packed, double p, int64_t bits) {
  static const auto call = operator_of_ops<Tensor(const Tensor&, const Tensor&, double, int64_t)>(
      "pmexp::apply_packed_mask");
  return call.call(x, packed, p, bits);
}

Tensor unpack_bits(const Tensor& packed, at::IntArrayRef shape, int64_t bits) {
  static const auto call =
      operator_of_ops<Tensor(const Tensor&, c10::SymIntArrayRef, int64_t)>("pmexp::unpack_bits");
  return call.call(packed, c10::fromIntArrayRefSlow(shape), bits);
}

// ---- Forward and backward. ----

int64_t packed_bytes(int64_t numel, int64_t bits) { return (numel * bits + 7) / 8; }

// Whether the values of x are what its memory holds, in order, and nobody looks on or transforms.
bool is_plain(const Tensor& x) {
  return x.layout() == at::kStrided && x.has_storage() && !x.unsafeGetTensorImpl()->is_python_dispatch() &&
         !x.is_nested() && !x.is_neg() && !x._is_zerotensor() && x.is_contiguous() && dtype_code(x) >= 0 &&
         !x._fw_grad(0).defined() && !c10::impl::dispatch_mode_enabled() &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

struct Drawn {
  Tensor y, packed;
};

// x * keep / (1 - p) with a fresh mask, and the packed mask. x is plain.
Drawn draw(const Tensor& x, double p, int64_t bits) {
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const c10::DeviceGuard guard(x.device());
  Tensor y = at::empty_like(x);
  Tensor packed = at::empty({packed_bytes(x.numel(), bits)}, x.options().dtype(at::kByte));
  int64_t key = next_seed(x.device());
  const Kernel* kernel = find_kernel(x, packed, y, true, bits);
  if (kernel == nullptr) {
    std::tie(y, packed) = packed_dropout(x, at::full({1}, key, at::kLong), p, bits);
    return {y, packed};
  }
  const void* from = x.const_data_ptr();
  void *to = y.mutable_data_ptr(), *mask = packed.mutable_data_ptr(), *none = nullptr;
  int32_t columns = 8, numel = static_cast<int32_t>(x.numel());  // of no bias
  int64_t threshold = static_cast<int64_t>(std::nearbyint((1.0 - p) * 4294967296.0));
  int64_t scale = bits_of(kept_scale(p, x));
  void* parameters[] = {&from, &to, &mask, &key, &columns, &numel, &threshold, &scale, &none, &none};
  launch(*kernel, x, parameters);
  return {y, packed};
}

// x * keep / (1 - p) by the mask in `packed`, differentiable where grad mode is on.
Tensor apply_bits(const Tensor& x, const Tensor& packed, double p, int64_t bits) {
  if (x._fw_grad(0).defined()) {  // of x linear
    return at::_make_dual(apply_bits(x._fw_primal(0), packed, p, bits), apply_bits(x._fw_grad(0), packed, p, bits), 0);
  }
  if (!at::GradMode::is_enabled() && is_plain(x) && packed.defined() && packed.is_contiguous() &&
      packed.scalar_type() == at::kByte && packed.device() == x.device() && packed.has_storage() &&
      packed.numel() == packed_bytes(x.numel(), bits)) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::DeviceGuard guard(x.device());
    Tensor y = at::empty_like(x);
    if (const Kernel* kernel = find_kernel(x, packed, y, false, bits)) {
      const void *from = x.const_data_ptr(), *mask = packed.const_data_ptr();
      void *to = y.mutable_data_ptr(), *none = nullptr;
      int32_t numel = static_cast<int32_t>(x.numel());
      int64_t scale = bits_of(kept_scale(p, x));
      void* parameters[] = {&from, &mask, &to, &numel, &scale, &none, &none};
      launch(*kernel, x, parameters);
      return y;
    }
  }
  return apply_packed_mask(x, packed, p, bits);
}

struct PackedDropout : torch::autograd::Function<PackedDropout> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* context, const Tensor& x, const Drawn& drawn, double p, int64_t bits,
                        bool cache) {
    context->saved_data["p"] = p;
    context->saved_data["options"] = bits * 2 + cache;
    context->save_for_backward({drawn.packed});
    context->set_materialize_grads(false);
    return drawn.y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Tensor& grad = grads[0];
    const Tensor none;
    if (!grad.defined()) return {none, none, none, none, none};
    const Tensor packed = context->get_saved_variables()[0];
    const double p = context->saved_data["p"].toDouble();
    const int64_t options = context->saved_data["options"].toInt(), bits = options / 2;
    // As functional._kept_mask: only a graph kept for more backwards keeps the Boolean mask of the first.
    if (options % 2 == 1 && torch::autograd::get_current_graph_task_keep_graph() && is_plain(grad)) {
      auto [kept, first] = context->saved_data.emplace("keep", at::IValue());
      if (first) kept->second = unpack_bits(packed, grad.sizes(), bits);
      return {grad.mul(kept->second.toTensor()).mul(kept_scale(p, grad)), none, none, none, none};
    }
    return {apply_bits(grad, packed, p, bits), none, none, none, none};
  }
};

// Nothing where x is not plain or no mask is to be drawn.
std::tuple<std::optional<Tensor>, std::optional<Tensor>> plain_dropout_and_bits(const Tensor& x, double p,
                                                                                 int64_t bits, bool cache_unpacked) {
  const bool has_mask = p > 0.0 && p < 1.0 && x.numel() > 0 && (bits == 1 || bits == 2 || bits == 4);
  if (!has_mask || !is_plain(x)) return {std::nullopt, std::nullopt};
  if (x.is_cuda() && driver().found) {  // a captured program has to draw anew at each replay
    int capturing = 0;
    const int error = driver().is_capturing(current_stream(x.device()), &capturing);
    if (error != 0 || capturing != 0) return {std::nullopt, std::nullopt};
  }
  Drawn drawn = draw(x, p, bits);
  if (at::GradMode::is_enabled() && x.requires_grad()) {
    drawn.y = PackedDropout::apply(x, drawn, p, bits, cache_unpacked);
  }
  return {drawn.y, drawn.packed};
}

std::optional<Tensor> plain_dropout(const Tensor& x, double p, int64_t bits, bool cache_unpacked) {
  return std::get<0>(plain_dropout_and_bits(x, p, bits, cache_unpacked));
}

TORCH_LIBRARY_FRAGMENT(pmexp, library) {
  library.def("plain_dropout(Tensor x, float p, int bits, bool cache_unpacked) -> Tensor?", plain_dropout);
  library.def("plain_dropout_and_bits(Tensor x, float p, int bits, bool cache_unpacked) -> (Tensor?, Tensor?)",
              plain_dropout_and_bits);
  library.def("take_offset(Device device, int increment) -> int", take_offset);
  library.def("seed_at(int seed, int offset) -> int", [](int64_t seed, int64_t offset) {
    return seed_at(static_cast<uint64_t>(seed), static_cast<uint64_t>(offset));
  });
  library.def("apply_plain_mask(Tensor x, Tensor packed, float p, int bits) -> Tensor", apply_bits);
  library.def("register_kernel(Tensor x, Tensor packed, Tensor y, bool draws, int bits, int function, int shared,"
              " int threads, int elements) -> ()", register_kernel);
}

}  // namespace
