#!/usr/bin/env bash
# triton 3.7.1, no GPU: knobs.runtime.launch_enter_hook is an object with no hooks in it, not None, and it is true.
# launch_enter_hook, launch_exit_hook and kernel_load_start_hook and _end_hook are HookChains, to which profilers add
# (launch_enter_hook.add). `launch_enter_hook is not None` and `if launch_enter_hook` thus hold when nobody has set a
# hook; what tells is its list, .calls. jit_cache_hook and jit_post_compile_hook, next to them, are None until set. A
# function that is assigned to launch_enter_hook takes the chain's place and has no such list.
# Output seen:
# launch_enter_hook=HookChain true=True calls=0
# launch_exit_hook=HookChain true=True calls=0
# kernel_load_start_hook=HookChain true=True calls=0
# kernel_load_end_hook=HookChain true=True calls=0
# jit_cache_hook=NoneType
# jit_post_compile_hook=NoneType
# after add: calls=1; after remove: HookChain calls=0; after an assignment: function calls=None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet triton==3.7.1
"$folder/venv/bin/python" - <<'PYTHON'
from triton import knobs

runtime = knobs.runtime
found = []
for name in ("launch_enter_hook", "launch_exit_hook", "kernel_load_start_hook", "kernel_load_end_hook"):
    hook = getattr(runtime, name)
    found.append(f"{name}={type(hook).__name__} true={bool(hook)} calls={len(hook.calls)}")
for name in ("jit_cache_hook", "jit_post_compile_hook"):
    found.append(f"{name}={type(getattr(runtime, name)).__name__}")


def enter(metadata):
    pass


runtime.launch_enter_hook.add(enter)
added = len(runtime.launch_enter_hook.calls)
runtime.launch_enter_hook.remove(enter)
chain = runtime.launch_enter_hook
runtime.launch_enter_hook = enter
found.append(
    f"after add: calls={added}; after remove: {type(chain).__name__} calls={len(chain.calls)}; after an "
    f"assignment: {type(runtime.launch_enter_hook).__name__} calls={getattr(runtime.launch_enter_hook, 'calls', None)}"
)
print(*found, sep="\n")
assert found == [
    "launch_enter_hook=HookChain true=True calls=0",
    "launch_exit_hook=HookChain true=True calls=0",
    "kernel_load_start_hook=HookChain true=True calls=0",
    "kernel_load_end_hook=HookChain true=True calls=0",
    "jit_cache_hook=NoneType",
    "jit_post_compile_hook=NoneType",
    "after add: calls=1; after remove: HookChain calls=0; after an assignment: function calls=None",
]
PYTHON
