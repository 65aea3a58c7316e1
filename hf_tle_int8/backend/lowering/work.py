"""About how much one program of a kernel computes: what decides whether a second thread is worth waking."""

from hf_tle_int8.backend.ttir import Operation, TensorType

# A loop whose trip count is known only at run time counts as so many iterations.
_ASSUMED_TRIPS = 16


def elements_touched(operation: Operation) -> int:
    """Elements that loads, stores and dots of ``operation`` and what is nested in it touch."""
    if operation.name in ("tt.load", "tt.store"):
        kind = operation.operands[0].type
        return kind.size if isinstance(kind, TensorType) else 1
    if operation.name == "tt.call":
        return elements_touched(operation.callee)
    nested = (inner for region in operation.regions for block in region.blocks for inner in block.operations)
    total = sum(map(elements_touched, nested))
    return total * _ASSUMED_TRIPS if operation.name in ("scf.for", "scf.while") else max(total, 1)
