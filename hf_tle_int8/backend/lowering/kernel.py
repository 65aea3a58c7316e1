"""A kernel as LLVM IR."""

from dataclasses import dataclass

from hf_tle_int8.backend import launch
from hf_tle_int8.backend.ir import I32, FunctionBuilder, IRType, ModuleBuilder
from hf_tle_int8.backend.lowering.assumptions import take_assumptions
from hf_tle_int8.backend.lowering.blocks import lower_body
from hf_tle_int8.backend.lowering.calls import CALLS
from hf_tle_int8.backend.lowering.combines import MAPS
from hf_tle_int8.backend.lowering.control_flow import CONTROL_FLOW
from hf_tle_int8.backend.lowering.dot import DOT
from hf_tle_int8.backend.lowering.function import Lowering
from hf_tle_int8.backend.lowering.gathers import GATHERS
from hf_tle_int8.backend.lowering.memory_operations import MEMORY_OPERATIONS
from hf_tle_int8.backend.lowering.reductions import REDUCTIONS
from hf_tle_int8.backend.lowering.tensor_operations import TENSOR_OPERATIONS
from hf_tle_int8.backend.lowering.types import ir_type
from hf_tle_int8.backend.lowering.work import elements_touched
from hf_tle_int8.backend.target import Target
from hf_tle_int8.backend.ttir import Module

_GRID = ("px", "py", "pz", "gx", "gy", "gz")
HANDLERS = {**TENSOR_OPERATIONS, **MEMORY_OPERATIONS, **REDUCTIONS, **DOT, **CONTROL_FLOW, **CALLS, **GATHERS, **MAPS}


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel as LLVM IR, with the entry points of `launch`.

    Attributes:
        name: of the kernel.
        parameters: names and types of its arguments before the grid.
        body: functions and globals, without triple and data layout.
    """

    name: str
    parameters: dict[str, IRType]
    body: str


def lower_kernel(module: Module, target: Target, python_entry: bool = True) -> LoweredKernel:
    """Lower the kernel of a module, for a CPU that need not be this one; ``python_entry`` adds ``<name>_python``.

    Raises:
        UnsupportedOperationError: it has an operation that is not supported; names the line of the kernel.
    """
    kernel = module.kernel
    take_assumptions(module.operation)
    name = kernel.attributes["sym_name"]
    block = kernel.regions[0].entry
    parameters = {f"a{index}": ir_type(argument.type) for index, argument in enumerate(block.arguments)}
    out = ModuleBuilder()
    f = FunctionBuilder(out, f"{name}_program", {**parameters, **dict.fromkeys(_GRID, I32)}, "internal")
    lowering = Lowering(f, target, [f.parameters[position] for position in _GRID], HANDLERS)
    lowering.define(block.arguments, [f.parameters[parameter] for parameter in parameters])
    lower_body(lowering, kernel.regions[0], ())
    f.return_()
    f.finish()
    launch.add_launch(out, name, f"{name}_program", parameters, elements_touched(kernel), f.scratch_bytes)
    if python_entry:
        launch.add_python_entry(out, name, parameters)
    return LoweredKernel(name, parameters, str(out))
