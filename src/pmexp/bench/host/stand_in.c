// Stands for a CUDA device: the CUDA runtime, its driver and cuBLAS as far as torch and Triton call them.
//
// Memory is the host's, copies copy, and kernels do nothing: results are of no use, and the host's part of a step is
// what it is beside a device that waits for it. Functions that fill in no result are not here; build.py adds them, all
// of which return success.

#define _GNU_SOURCE
#define __CUDA_API_VERSION_INTERNAL  // the headers call some functions by their newest names
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  kMultiprocessors = 132,
  kThreadsOfABlock = 1024,
  kThreadsOfAMultiprocessor = 2048,
  kSharedOfABlock = 48 << 10,       // bytes, without asking for more
  kMostSharedOfABlock = 227 << 10,  // bytes, where more is asked for
  kRegisters = 65536,
  kMajor = 9,  // compute capability
  kVersion = 13000,
};
static const size_t kMemory = (size_t)140 << 30, kAddresses = (size_t)1 << 40, kPage = (size_t)2 << 20;

// ---- What bench/host asks for. ----

typedef void (*OnLaunch)(const char* name, const unsigned* places, void* stream, void** parameters);
static OnLaunch on_launch;
static long launches;

void stand_in_on_launch(OnLaunch function) { on_launch = function; }
long stand_in_launches(void) { return launches; }

// ---- Contexts: a thread is in the one context after its first work for the device. ----

static int the_context;
static __thread CUcontext context;

void stand_in_launch(void) {
  launches++;
  context = (CUcontext)&the_context;
}

CUresult cuCtxGetCurrent(CUcontext* found) { return *found = context, 0; }
CUresult cuCtxSetCurrent(CUcontext chosen) { return context = chosen, 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* found, CUdevice device) { return *found = (CUcontext)&the_context, 0; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }
cudaError_t cudaSetDevice(int device) { return context = (CUcontext)&the_context, 0; }

// ---- Memory: addresses are reserved once and given out once; torch's allocator uses them again. ----

static char *first, *next;

static int is_of_device(const void* at) { return (const char*)at >= first && (const char*)at < first + kAddresses; }

cudaError_t cudaMalloc(void** at, size_t bytes) {
  if (first == NULL) {
    first = mmap(NULL, kAddresses, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (first == MAP_FAILED) abort();
    next = first;
  }
  bytes = (bytes + kPage - 1) / kPage * kPage;
  if (next + bytes > first + kAddresses) return cudaErrorMemoryAllocation;
  *at = next;
  next += bytes;
  return 0;
}

cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned flags) { return *at = calloc(1, bytes), 0; }
cudaError_t cudaFreeHost(void* at) { return free(at), 0; }
cudaError_t cudaMemGetInfo(size_t* left, size_t* total) { return *left = *total = kMemory, 0; }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  stand_in_launch();
  return memcpy(to, from, bytes), 0;
}

cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  stand_in_launch();
  return memset(at, value, bytes), 0;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* found, const void* at) {
  memset(found, 0, sizeof *found);
  if (is_of_device(at)) *found = (struct cudaPointerAttributes){cudaMemoryTypeDevice, 0, (void*)at, NULL};
  return 0;
}

CUresult cuPointerGetAttribute(void* found, CUpointer_attribute kind, CUdeviceptr at) {
  *(CUdeviceptr*)found = at;
  return is_of_device((void*)at) ? 0 : CUDA_ERROR_INVALID_VALUE;
}

// Triton's launcher asks for the address of each pointer that it passes.
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* kinds, void** found, CUdeviceptr at) {
  for (unsigned i = 0; i < count; i++) *(CUdeviceptr*)found[i] = at;
  return 0;
}

// ---- The device. ----

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, 0; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, 0; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = kVersion, 0; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = kVersion, 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, 0; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) { return *can = 0, 0; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) { return *device = ordinal, 0; }
CUresult cuDriverGetVersion(int* version) { return *version = kVersion, 0; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* found, int device) {
  *found = (struct cudaDeviceProp){
      .name = "stand-in for a CUDA device",
      .totalGlobalMem = kMemory,
      .sharedMemPerBlock = kSharedOfABlock,
      .sharedMemPerBlockOptin = kMostSharedOfABlock,
      .sharedMemPerMultiprocessor = 228 << 10,
      .regsPerBlock = kRegisters,
      .regsPerMultiprocessor = kRegisters,
      .warpSize = 32,
      .maxThreadsPerBlock = kThreadsOfABlock,
      .maxThreadsDim = {1024, 1024, 64},
      .maxGridSize = {0x7fffffff, 65535, 65535},
      .maxThreadsPerMultiProcessor = kThreadsOfAMultiprocessor,
      .multiProcessorCount = kMultiprocessors,
      .major = kMajor,
      .l2CacheSize = 50 << 20,
      .unifiedAddressing = 1,
  };
  return 0;
}

cudaError_t cudaDeviceGetAttribute(int* found, enum cudaDeviceAttr kind, int device) {
  switch (kind) {
    case cudaDevAttrMultiProcessorCount: *found = kMultiprocessors; break;
    case cudaDevAttrMaxThreadsPerBlock: *found = kThreadsOfABlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *found = kThreadsOfAMultiprocessor; break;
    case cudaDevAttrComputeCapabilityMajor: *found = kMajor; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *found = kSharedOfABlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *found = kMostSharedOfABlock; break;
    case cudaDevAttrMaxRegistersPerBlock: *found = kRegisters; break;
    case cudaDevAttrWarpSize: *found = 32; break;
    default: *found = 0;
  }
  return 0;
}

CUresult cuDeviceGetAttribute(int* found, CUdevice_attribute kind, CUdevice device) {
  return (CUresult)cudaDeviceGetAttribute(found, (enum cudaDeviceAttr)kind, device);  // the numbers are the same
}

// ---- Streams, of which nothing is captured, and events. ----

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return *stream = malloc(1), 0;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) { return *priority = 0, 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus* status) { return *status = 0, 0; }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) { return *status = 0, 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) { return *event = malloc(1), 0; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return free(event), 0; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) { return *ms = 0, 0; }

// ---- Kernels of torch. ----

static void* no_binary[1];
static __thread struct Shape {
  dim3 grid, block;
  size_t shared;
  void* stream;
} shapes[16];
static __thread int depth;

void** __cudaRegisterFatBinary(void* binary) { return no_binary; }
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) { return *kernel = (cudaKernel_t)function, 0; }

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
  shapes[depth++] = (struct Shape){grid, block, shared, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const struct Shape shape = shapes[--depth];
  *grid = shape.grid, *block = shape.block, *shared = shape.shared, *(void**)stream = shape.stream;
  return 0;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* found, const void* function) {
  *found = (struct cudaFuncAttributes){.maxThreadsPerBlock = kThreadsOfABlock, .numRegs = 32, .binaryVersion = 90};
  return 0;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t shared) {
  return *blocks = kThreadsOfAMultiprocessor / threads, 0;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int threads,
                                                                   size_t shared, unsigned flags) {
  return *blocks = kThreadsOfAMultiprocessor / threads, 0;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult* result) {
  *function = dlsym(RTLD_DEFAULT, name);
  return *function == NULL ? cudaErrorSymbolNotFound : 0;
}

// ---- Kernels of Triton: a function is its name. ----

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return *function = (CUfunction)strdup(name), 0;
}

CUresult cuFuncGetAttribute(int* found, CUfunction_attribute kind, CUfunction function) {
  *found = kind == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : kind == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return 0;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void** parameters,
                        void** extra) {
  stand_in_launch();
  const unsigned places[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared};
  if (on_launch != NULL) on_launch((const char*)function, places, stream, parameters);
  return 0;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra) {
  return cuLaunchKernel(function, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
                        config->blockDimY, config->blockDimZ, config->sharedMemBytes, config->hStream, parameters,
                        extra);
}

// ---- cuBLAS: a product is a launch, by what build.py adds. ----

int cublasCreate_v2(void** handle) { return *handle = malloc(1), 0; }
int cublasLtCreate(void** handle) { return *handle = malloc(1), 0; }
int cublasGetMathMode(void* handle, int* mode) { return *mode = 0, 0; }
int cublasGetPointerMode_v2(void* handle, int* mode) { return *mode = 0, 0; }

int cublasLtMatmulAlgoGetHeuristic(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference,
                                   int most, void* results, int* count) {
  return *count = 1, 0;  // torch has set the results to 0, which says that they are fit
}
