// Has at::dropout of Python's callers mean packed dropout while a routed forward runs (../keyed_routes.py).
//
// The dispatcher asks for a kernel of this key only in a thread that has included it, so that no other thread, and
// no thread beside a routed forward, takes another way than without this library. torch has the key for tests, and
// nothing in it includes it or has a kernel there.

#include <ATen/SavedTensorHooks.h>
#include <ATen/ops/dropout.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/jit/runtime/interpreter.h>

namespace {

constexpr auto kRouteKey = c10::DispatchKey::TESTING_ONLY_GenericMode;
using BesideRoute = c10::impl::ExcludeDispatchKeyGuard;

// What the innermost routed forward of this thread has at::dropout mean: bits * 2 + cache_unpacked of plain_dropout,
// or one of these. A number beside the key, since torch hands the keys of a thread on to threads of a backward.
constexpr int64_t kNone = 0, kStock = -1, kByPython = -2, kRefused = -3;
thread_local int64_t route = kNone;

// The devices that plain_dropout serves, as Python has decided; the CPU's index is -1.
std::atomic<bool> served[kDevices];

void serve_routes(int64_t device, bool on) {
  if (device >= -1 && device + 1 < kDevices) served[device + 1].store(on);
}

bool is_served(const Tensor& x) {
  const int64_t place = x.is_cpu() ? 0 : x.is_cuda() ? x.get_device() + 1 : kDevices;
  return place < kDevices && served[place].load();
}

// Whether anything traces, transforms or looks on.
bool is_observed() {
  return c10::impl::dispatch_mode_enabled() || at::impl::PythonTorchFunctionTLS::stack_len() > 0 ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer);
}

// Sets it and returns what it was.
int64_t set_route(int64_t options) {
  c10::impl::tls_set_dispatch_key_included(kRouteKey, options != kNone);
  return std::exchange(route, options);
}

// What it is where the calls of Python's functions reach the dispatcher unobserved; kRefused where they do not.
int64_t route_now() { return is_observed() ? kRefused : route; }

// Whether a call drops by torch's own dropout: as a mode of Python's does not see calls of a scripted function.
bool stays_stock(double p, bool train) {
  return !train || p == 0.0 || route == kNone || route == kStock || !torch::jit::currentCallstack().empty();
}

// Whether a checkpoint may have called, which would call again without the route: Python looks. It has hooks of saved
// tensors, or is a function of autograd's, whose forward goes on without tangents even where it asks for gradients, or
// is in a backward.
bool may_be_in_checkpoint() {
  return !at::GradMode::is_enabled() || !c10::AutogradState::get_tls_state().get_fw_grad_mode() ||
         at::SavedTensorDefaultHooks::get_hooks(true) || torch::autograd::get_current_graph_task_id() != -1;
}

Tensor drop_by_python(const Tensor& x, double p, bool train, bool inplace) {
  static const auto call = operator_of_ops<Tensor(const Tensor&, double, bool, bool)>("pmexp::dropout_of_route");
  return call.call(x, p, train, inplace);
}

Tensor dropout_on_route(const Tensor& x, double p, bool train) {
  if (stays_stock(p, train)) {
    const BesideRoute beside(kRouteKey);
    return at::dropout(x, p, train);
  }
  if (route > 0 && is_served(x) && !may_be_in_checkpoint() && !is_observed()) {
    if (const auto y = plain_dropout(x, p, route / 2, route % 2 == 1, std::nullopt)) return *y;
  }
  return drop_by_python(x, p, train, false);
}

Tensor& dropout_on_route_(Tensor& x, double p, bool train) {
  if (stays_stock(p, train)) {
    const BesideRoute beside(kRouteKey);
    return at::dropout_(x, p, train);
  }
  drop_by_python(x, p, train, true);
  return x;
}

// Calls torch's own, whose inside is on no route.
void call_beside_route(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const BesideRoute beside(kRouteKey);
  op.callBoxed(stack);
}

void attention_on_route(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const auto by_python = c10::Dispatcher::singleton().findSchemaOrThrow("pmexp::attention_of_route", "");
  constexpr size_t kRate = 4, kArguments = 8;
  const double p = (stack->end() - kArguments + kRate)->toDouble();
  if (op.schema().arguments().size() != kArguments || stays_stock(p, true)) return call_beside_route(op, stack);
  by_python.callBoxed(stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) { library.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, TESTING_ONLY_GenericMode, library) {
  library.impl("dropout", dropout_on_route);
  library.impl("dropout_", dropout_on_route_);
  library.impl("scaled_dot_product_attention", torch::CppFunction::makeFromBoxedFunction<&attention_on_route>());
  // These call at::dropout inside: recurrent layers, between their layers.
  for (const char* name : {"lstm.input", "lstm.data", "gru.input", "gru.data", "rnn_tanh.input", "rnn_tanh.data",
                           "rnn_relu.input", "rnn_relu.data", "quantized_lstm.input", "quantized_lstm.data",
                           "quantized_gru.input", "quantized_gru.data", "_scaled_dot_product_attention_math"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&call_beside_route>());
  }
}

// Addresses of both functions: Python's ctypes calls them in a third of the time that an operator takes.
TORCH_LIBRARY_FRAGMENT(pmexp, library) {
  library.def("serve_routes(int device, bool on) -> ()", serve_routes);
  library.def("route_functions() -> (int, int)", []() -> std::tuple<int64_t, int64_t> {
    return {reinterpret_cast<int64_t>(&route_now), reinterpret_cast<int64_t>(&set_route)};
  });
}
