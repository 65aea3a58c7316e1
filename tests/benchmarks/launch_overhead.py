"""What calls from Python cost: of an empty kernel with ten arguments, and of a layer beyond its kernels.

python tests/benchmarks/launch_overhead.py
"""

import timeit

import torch

from hf_tle_int8 import TLEInt8Linear, execution
from hf_tle_int8.backend import codegen, launch, target
from hf_tle_int8.backend.entry import KernelEntry
from hf_tle_int8.backend.ir import FLOAT, I32, I64, PTR, FunctionBuilder, ModuleBuilder
from hf_tle_int8.backend.schedule import DYNAMIC, EVEN

CALLS = 2_000


def empty_kernel(work: int, schedule: str) -> KernelEntry:
    """A kernel of four pointers, four i64, one i32 and one fp32 that does nothing."""
    module = ModuleBuilder()
    parameters = {**{f"p{i}": PTR for i in range(4)}, **{f"n{i}": I64 for i in range(4)}, "m": I32, "s": FLOAT}
    grid = dict.fromkeys(("px", "py", "pz", "gx", "gy", "gz"), I32)
    program = FunctionBuilder(module, "empty_program", {**parameters, **grid}, "internal")
    program.return_()
    program.finish()
    launch.add_launch(module, "empty", "empty_program", parameters, work)
    launch.add_python_entry(module, "empty", parameters)
    host = target.host()
    return KernelEntry(codegen.compile_module(host, str(module)).object_code, host, "empty", schedule)


def microseconds(call, *arguments: object) -> float:
    """The best of many averages over many calls: on a machine that others use, few of them are undisturbed."""
    return min(timeit.repeat(lambda: call(*arguments), number=CALLS, repeat=200)) / CALLS * 1e6


@torch.no_grad()
def print_layer() -> None:
    """A layer of 64 by 64 in bf16 for one row, the operator that it calls, and its kernels."""
    layer = TLEInt8Linear(torch.ones(64, 64, dtype=torch.int8), torch.ones(64)).pack_()
    x, panels, scale = torch.randn(1, 1, 64).bfloat16(), layer._weight().detach(), layer.weight_scale
    plan = execution._plan(1, 64, 64, x.dtype, None, 1)
    scratch, y = torch.empty(plan.quantize.size + 64, dtype=torch.int8), torch.empty(1, 64).bfloat16()
    to = -(-scratch.data_ptr() // 64) * 64
    pointers = to + plan.quantize.scales, to, panels.data_ptr(), scale.data_ptr(), 0, y.data_ptr()

    def kernels() -> None:
        plan.quantize.run(x, to)
        plan.call(*pointers, 64, 1, 64, plan.quantize.padded_k, *plan.programs, 1, 1)

    own, empty = torch.nn.Linear(64, 64, bias=False).bfloat16(), torch.nn.Identity()
    operator = torch.ops.tle_int8.packed_linear.default
    print(f"layer, 64 by 64, bf16, one row     {microseconds(layer, x):.2f} us")
    print(f"its operator                       {microseconds(operator, x, panels, scale, 64):.2f} us")
    print(f"its two kernels, each called       {microseconds(kernels):.2f} us")
    print(f"nn.Linear, the same                {microseconds(own, x):.2f} us")
    print(f"nn.Identity                        {microseconds(empty, x):.2f} us")


def main() -> None:
    """Print the cost of a call on one thread and on two, and of a small torch operation for scale."""
    torch.set_num_threads(1)
    even, dynamic = (empty_kernel(1 << 20, schedule) for schedule in (EVEN, DYNAMIC))
    arguments = (*range(4096, 4100), *range(4), 7, 1.5)
    x = torch.zeros(8)
    print(f"entry, 10 arguments, one thread    {microseconds(even.call, *arguments, 4, 1, 1, 1):.2f} us")
    print(f"entry, 10 arguments, two threads   {microseconds(even.call, *arguments, 4, 1, 1, 2):.2f} us")
    print(f"the same, dynamic schedule         {microseconds(dynamic.call, *arguments, 4, 1, 1, 2):.2f} us")
    print(f"torch.add(x, x, out=x), 8 elements {microseconds(lambda: torch.add(x, x, out=x)):.2f} us")
    print_layer()


if __name__ == "__main__":
    main()
