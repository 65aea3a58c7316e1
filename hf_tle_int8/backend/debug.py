"""Reading what the compiler makes: ``HF_TLE_INT8_DEBUG=ttir,llir,asm`` (or ``all``) prints these stages to stderr.

Stages are printed when a kernel is compiled; ``TRITON_ALWAYS_COMPILE=1`` compiles those that are in the cache, too.
"""

import os
import sys

VARIABLE = "HF_TLE_INT8_DEBUG"
STAGES = ("ttir", "llir", "asm")


def requested() -> frozenset[str]:
    """The stages that `VARIABLE` names.

    Raises:
        ValueError: it names one that there is not.
    """
    names = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    unknown = sorted(names - {*STAGES, "all"})
    if unknown:
        raise ValueError(
            f"{VARIABLE} names {', '.join(map(repr, unknown))}, which is no stage. "
            f"There are {', '.join(STAGES)} and 'all'; separate them by commas."
        )
    return frozenset(STAGES) if "all" in names else frozenset(names)


def show(stage: str, kernel: str, text: object) -> None:
    """Print a stage of a kernel where it is asked for.

    Raises:
        ValueError: as `requested` says.
    """
    if stage in requested():
        print(f"==== {stage} of {kernel} ====\n{str(text).rstrip()}\n", file=sys.stderr)
