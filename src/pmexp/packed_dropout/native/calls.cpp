// Packed dropout of a plain tensor in one call of torch's dispatcher, forward and backward in C++: what
// functional.py does by several calls of Python, which take longer than the kernels of small tensors.
//
// On the CPU the kernels are the core's (../cpu), whose functions Python has loaded and hands over (pmexp::use_core);
// on CUDA those that Triton compiled (cuda_launch.h). What has no kernel here goes to the operators of ops.py. This
// needs libtorch and no more, neither Python's nor CUDA's headers, so that one library serves any Python with the
// same torch.

#define AT_PER_OPERATOR_HEADERS  // those of all operators together take a quarter of the build's time

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_make_dual.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "cuda_launch.h"

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

// What torch.randint(0, 2**62, (1,)) draws on the CPU: 64 bits of the generator's, modulo 2**62.
int64_t next_seed_of_cpu(const std::optional<at::Generator>& chosen) {
  auto* generator = at::get_generator_or_default<at::CPUGeneratorImpl>(chosen, at::detail::getDefaultCPUGenerator());
  std::lock_guard<std::mutex> lock(generator->mutex_);
  return static_cast<int64_t>(generator->random64() % (uint64_t{1} << 62));
}

// The seed that torch.randint would draw from the chosen generator, by default the device's.
int64_t next_seed(c10::Device device, const std::optional<at::Generator>& chosen) {
  if (!device.is_cuda()) return next_seed_of_cpu(chosen);
  at::Generator generator = chosen ? *chosen : at::globalContext().defaultGenerator(device);
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

// ---- The CPU core. ----

struct Core {
  int backend;  // number of the instruction set
  decltype(&pmexp_dropout) dropout;
  decltype(&pmexp_scale_by_mask) apply_mask;
};

std::atomic<const Core*> cpu_core{nullptr};

// Takes the core's functions by their addresses; 0 takes them away.
void use_core(int64_t backend, int64_t dropout, int64_t apply_mask) {
  if (dropout == 0) return cpu_core.store(nullptr);
  cpu_core.store(new Core{static_cast<int>(backend), reinterpret_cast<decltype(&pmexp_dropout)>(dropout),
                          reinterpret_cast<decltype(&pmexp_scale_by_mask)>(apply_mask)});
}

const Core* core_for(const Tensor& x) {
  return x.is_cpu() ? cpu_core.load(std::memory_order_acquire) : nullptr;
}

// y, computed from the contiguous copy `dense` of x, in the layout of empty_like(x).
Tensor with_layout(const Tensor& x, const Tensor& dense, const Tensor& y) {
  return dense.is_same(x) ? y : at::empty_like(x).copy_(y);
}

// ---- Forward and backward. ----

int64_t packed_bytes(int64_t numel, int64_t bits) { return (numel * bits + 7) / 8; }

int64_t keep_threshold(double p) { return static_cast<int64_t>(std::nearbyint((1.0 - p) * 4294967296.0)); }

// Whether the values of x are what its memory holds and nobody looks on or transforms. They lie in order as well,
// but for the core: Python copies what does not, and so does draw().
bool is_plain(const Tensor& x) {
  return x.layout() == at::kStrided && x.has_storage() && !x.unsafeGetTensorImpl()->is_python_dispatch() &&
         !x.is_nested() && !x.is_neg() && !x._is_zerotensor() && dtype_code(x) >= 0 &&
         (x.is_contiguous() || core_for(x) != nullptr) && !x._fw_grad(0).defined() &&
         !c10::impl::dispatch_mode_enabled() &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

struct Drawn {
  Tensor y, packed;
};

// x * keep / (1 - p) with a fresh mask, and the packed mask. x is plain.
Drawn draw(const Tensor& x, double p, int64_t bits, const std::optional<at::Generator>& generator) {
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const c10::DeviceGuard guard(x.device());
  const Tensor dense = x.contiguous();
  Tensor y = at::empty_like(dense);
  Tensor packed = at::empty({packed_bytes(x.numel(), bits)}, x.options().dtype(at::kByte));
  int64_t key = next_seed(x.device(), generator);
  const void* from = dense.const_data_ptr();
  void *to = y.mutable_data_ptr(), *mask = packed.mutable_data_ptr(), *none = nullptr;
  int64_t threshold = keep_threshold(p);
  if (const Kernel* kernel = find_kernel(dense, packed, y, true, bits)) {
    int32_t columns = 8, numel = static_cast<int32_t>(x.numel());  // of no bias
    int64_t scale = bits_of(kept_scale(p, x));
    void* parameters[] = {&from, &to, &mask, &key, &columns, &numel, &threshold, &scale, &none, &none};
    launch(*kernel, x, parameters);
  } else if (const Core* core = core_for(x)) {
    core->dropout(core->backend, static_cast<int>(dtype_code(x)), from, to, static_cast<uint8_t*>(mask), x.numel(),
                  &key, static_cast<uint64_t>(threshold), kept_scale(p, x), static_cast<int>(bits),
                  at::get_num_threads());
  } else {
    std::tie(y, packed) = packed_dropout(dense, at::full({1}, key, at::kLong), p, bits);
  }
  return {with_layout(x, dense, y), packed};
}

// x * keep / (1 - p) of a plain x by the mask in `packed`; undefined where no kernel is at hand.
Tensor apply_by_kernel(const Tensor& x, const Tensor& packed, double p, int64_t bits) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const c10::DeviceGuard guard(x.device());
  const Tensor dense = x.contiguous();
  Tensor y = at::empty_like(dense);
  const void *from = dense.const_data_ptr(), *mask = packed.const_data_ptr();
  void *to = y.mutable_data_ptr(), *none = nullptr;
  if (const Kernel* kernel = find_kernel(dense, packed, y, false, bits)) {
    int32_t numel = static_cast<int32_t>(x.numel());
    int64_t scale = bits_of(kept_scale(p, x));
    void* parameters[] = {&from, &mask, &to, &numel, &scale, &none, &none};
    launch(*kernel, x, parameters);
  } else if (const Core* core = core_for(x)) {
    core->apply_mask(core->backend, static_cast<int>(dtype_code(x)), from, to,
                     const_cast<uint8_t*>(static_cast<const uint8_t*>(mask)), x.numel(), kept_scale(p, x),
                     static_cast<int>(bits), at::get_num_threads());
  } else {
    return {};
  }
  return with_layout(x, dense, y);
}

// x * keep / (1 - p) by the mask in `packed`, differentiable where grad mode is on.
Tensor apply_bits(const Tensor& x, const Tensor& packed, double p, int64_t bits) {
  if (x._fw_grad(0).defined()) {  // of x linear
    return at::_make_dual(apply_bits(x._fw_primal(0), packed, p, bits), apply_bits(x._fw_grad(0), packed, p, bits), 0);
  }
  if (!at::GradMode::is_enabled() && is_plain(x) && packed.defined() && packed.is_contiguous() &&
      packed.scalar_type() == at::kByte && packed.device() == x.device() && packed.has_storage() &&
      packed.numel() == packed_bytes(x.numel(), bits)) {
    if (const Tensor y = apply_by_kernel(x, packed, p, bits); y.defined()) return y;
  }
  return apply_packed_mask(x, packed, p, bits);
}

struct PackedDropout : torch::autograd::Function<PackedDropout> {
  static constexpr bool is_traceable = true;

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Tensor& grad = grads[0];
    if (!grad.defined()) return {Tensor()};
    const Tensor packed = context->get_saved_variables()[0];
    const double p = context->saved_data["p"].toDouble();
    const int64_t options = context->saved_data["options"].toInt(), bits = options / 2;
    // As functional._kept_mask: only a graph kept for more backwards keeps the Boolean mask of the first. A second
    // derivative is apply_bits' own, since that of a product with a number rounds the number to 16 bits.
    if (options % 2 == 1 && torch::autograd::get_current_graph_task_keep_graph() && !at::GradMode::is_enabled() &&
        is_plain(grad)) {
      auto [kept, first] = context->saved_data.emplace("keep", at::IValue());
      if (first) kept->second = unpack_bits(packed, grad.sizes(), bits);
      const Tensor& keep = kept->second.toTensor();
      if (core_for(grad)) return {apply_by_kernel(grad, keep, p, 8)};
      return {grad.mul(keep).mul(kept_scale(p, grad))};
    }
    return {apply_bits(grad, packed, p, bits)};
  }
};

// The node that Function::apply would make, which for any number of inputs, outputs and ways to return them takes as
// long as all else of a small mask.
struct PackedDropoutBackward final : torch::autograd::CppNode<PackedDropout> {
  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return PackedDropout::backward(&ctx_, std::move(grads));
  }

  std::string name() const override { return "PackedDropoutBackward"; }
};

auto make_node() {
#if __has_include(<torch/csrc/autograd/node.h>)  // nodes count their references themselves
  return c10::make_intrusive<PackedDropoutBackward>();
#else
  return std::shared_ptr<PackedDropoutBackward>(new PackedDropoutBackward, torch::autograd::deleteNode);
#endif
}

// Makes y, dropped of x, part of x's graph.
void set_gradient(const Tensor& x, const Drawn& drawn, double p, int64_t bits, bool cache) {
  const auto node = make_node();
  node->set_ctx_grad_fn(node);
  node->set_next_edges(torch::autograd::collect_next_edges(x));
  node->is_variable_input_ = {true};  // what compiled autograd asks for
  AutogradContext& context = node->ctx_;
  context.saved_data["p"] = p;
  context.saved_data["options"] = bits * 2 + cache;
  context.set_materialize_grads(false);
  context.save_for_backward({drawn.packed});
  node->save_variables_to_ctx();
  torch::autograd::impl::set_gradient_edge(drawn.y, {node, node->add_input_metadata(drawn.y)});
}

// Nothing where x is not plain or no mask is to be drawn. The seed is the generator's next, by default the device's.
std::tuple<std::optional<Tensor>, std::optional<Tensor>> plain_dropout_and_bits(
    const Tensor& x, double p, int64_t bits, bool cache_unpacked,
    const std::optional<at::Generator>& generator = std::nullopt) {
  const bool has_mask = p > 0.0 && p < 1.0 && x.numel() > 0 && (bits == 1 || bits == 2 || bits == 4);
  if (!has_mask || !is_plain(x)) return {std::nullopt, std::nullopt};
  if (x.is_cuda() && driver().found) {  // a captured program has to draw anew at each replay
    int capturing = 0;
    const int error = driver().is_capturing(current_stream(x.device()), &capturing);
    if (error != 0 || capturing != 0) return {std::nullopt, std::nullopt};
  }
  Drawn drawn = draw(x, p, bits, generator);
  if (at::GradMode::is_enabled() && x.requires_grad()) set_gradient(x, drawn, p, bits, cache_unpacked);
  return {drawn.y, drawn.packed};
}

std::optional<Tensor> plain_dropout(const Tensor& x, double p, int64_t bits, bool cache_unpacked,
                                    const std::optional<at::Generator>& generator) {
  return std::get<0>(plain_dropout_and_bits(x, p, bits, cache_unpacked, generator));
}

TORCH_LIBRARY_FRAGMENT(pmexp, library) {
  library.def("plain_dropout(Tensor x, float p, int bits, bool cache_unpacked, Generator? generator=None) -> Tensor?",
              plain_dropout);
  library.def("plain_dropout_and_bits(Tensor x, float p, int bits, bool cache_unpacked) -> (Tensor?, Tensor?)",
              [](const Tensor& x, double p, int64_t bits, bool cache) { return plain_dropout_and_bits(x, p, bits, cache); });
  library.def("use_core(int backend, int dropout, int apply_mask) -> ()", use_core);
  library.def("take_offset(Device device, int increment) -> int", take_offset);
  library.def("seed_at(int seed, int offset) -> int", [](int64_t seed, int64_t offset) {
    return seed_at(static_cast<uint64_t>(seed), static_cast<uint64_t>(offset));
  });
  library.def("apply_plain_mask(Tensor x, Tensor packed, float p, int bits) -> Tensor", apply_bits);
  library.def("register_kernel(Tensor x, Tensor packed, Tensor y, bool draws, int bits, int function, int shared,"
              " int threads, int elements) -> ()", register_kernel);
}

}  // namespace

#include "routes.h"  // which calls what is above
