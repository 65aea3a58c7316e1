"""Errors of the elementary functions of `hf_tle_int8.backend.vector_math`, and where their polynomials come from.

    python tests/benchmarks/vector_math_errors.py
    python tests/benchmarks/vector_math_errors.py --derive | ruff format - > hf_tle_int8/backend/vector_math/tables.py

The first form prints, for every target that runs here, the largest error of each function in units in the last place
of the exact result: for float over all bit patterns in steps of a stride, against numpy in double; for double over
random bit patterns, against mpmath. The second form prints the module of coefficients.

A polynomial is fitted by weighted least squares at Chebyshev nodes, where the weight turns its error into a relative
error of the function; that comes within a small factor of the minimax polynomial. Coefficients are rounded to the
format one by one, lowest order first, and those that follow are fitted anew to what is left.
"""

import argparse
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "backend"))

from jit_support import elementwise, run

from hf_tle_int8.backend import hwcap, target
from hf_tle_int8.backend.ir import DOUBLE, FLOAT, IRType
from hf_tle_int8.backend.vector_math import FUNCTIONS, MAX_ULP

Function = Callable[[mp.mpf], mp.mpf]
PRECISION = {"float": 24, "double": 53}
# n * ln 2 is exact up to the largest |n|: 151 and 1076.
BITS_OF_N = {"float": 8, "double": 11}
TANH_SWITCH = 0.625
ERF_SWITCH = 0.90625
# Just above where erf rounds to 1.
ERF_IS_ONE = {"float": 3.95, "double": 5.95}


# Derivation


@dataclass(frozen=True)
class Fit:
    """A polynomial to fit.

    Attributes:
        function: what to approximate.
        weight: relative error of the whole result per error of the polynomial.
        low, high: the interval, by format.
        count: number of coefficients, by format.
        comment: what the table says of it.
    """

    function: Function
    weight: Function
    low: dict[str, float]
    high: dict[str, float]
    count: dict[str, int]
    comment: str


def both(value: float) -> dict[str, float]:
    """The same for either format."""
    return {"float": value, "double": value}


def _over_root(function: Function) -> Function:
    """``function(x) / x`` as a function of x**2."""
    return lambda u: function(mp.sqrt(u)) / mp.sqrt(u)


_tanh, _erf = _over_root(mp.tanh), _over_root(mp.erf)
_TINY = both(1e-12)
_DOWN, _UP = both(math.sqrt(0.5) - 1), both(math.sqrt(2) - 1)

FITS = {
    "EXP": Fit(
        lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r**2 / mp.exp(r),
        both(-0.35), both(0.35), {"float": 6, "double": 11}, "(exp(r) - 1 - r) / r**2 for |r| < 0.35.",
    ),
    "EXP2": Fit(
        lambda r: (2**r - 1) / r - 0.5, lambda r: r / 2**r,
        both(-0.5), both(0.5), {"float": 6, "double": 12}, "(2**r - 1) / r - 0.5 for |r| <= 0.5.",
    ),
    "LOG": Fit(
        lambda f: (mp.log1p(f) - f) / f**2, lambda f: f**2 / mp.log1p(f),
        _DOWN, _UP, {"float": 9, "double": 21}, "(log(1 + f) - f) / f**2 for 1 + f from sqrt(1/2) to sqrt(2).",
    ),
    "LOG2": Fit(
        lambda f: (mp.log1p(f) / mp.log(2) - 1.5 * f) / f, lambda f: f / mp.log1p(f) * mp.log(2),
        _DOWN, _UP, {"float": 11, "double": 22}, "(log2(1 + f) - 1.5 * f) / f for 1 + f from sqrt(1/2) to sqrt(2).",
    ),
    "TANH": Fit(
        lambda u: (_tanh(u) - 1) / u, lambda u: u / _tanh(u),
        _TINY, both(TANH_SWITCH**2), {"float": 5, "double": 11}, "(tanh(x) / x - 1) / x**2 in x**2, x < TANH_SWITCH.",
    ),
    "ERF": Fit(
        lambda u: _erf(u) - 1, lambda u: 1 / _erf(u),
        _TINY, both(ERF_SWITCH**2), {"float": 7, "double": 13}, "erf(x) / x - 1 in x**2, for x < ERF_SWITCH.",
    ),
    "LOG2_ERFC": Fit(
        lambda x: mp.log(mp.erfc(x)) / mp.log(2), lambda x: mp.erfc(x) * mp.log(2) / mp.erf(x),
        both(ERF_SWITCH), ERF_IS_ONE, {"float": 7, "double": 19}, "log2(1 - erf(x)), x from ERF_SWITCH to ERF_IS_ONE.",
    ),
}  # fmt: skip


def rounded(value: mp.mpf, bits: int) -> mp.mpf:
    """``value`` with a significand of ``bits`` bits."""
    with mp.workprec(bits):
        return +value


def derive(fit: Fit, name: str) -> list[float]:
    """The coefficients of ``fit`` in the format ``name``, lowest order first."""
    with mp.workdps(60):
        count, low, high = fit.count[name], mp.mpf(fit.low[name]), mp.mpf(fit.high[name])
        number = 6 * count + 40
        angles = [mp.pi * (2 * index + 1) / (2 * number) for index in range(number)]
        nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(angle) for angle in angles]
        weights = [fit.weight(x) for x in nodes]
        rest = [fit.function(x) for x in nodes]
        found = []
        for power in range(count):
            rows = [[w * x**k for k in range(power, count)] for w, x in zip(weights, nodes, strict=True)]
            solution = _least_squares(rows, [w * y for w, y in zip(weights, rest, strict=True)])
            found.append(rounded(solution, PRECISION[name]))
            rest = [y - found[-1] * x**power for x, y in zip(nodes, rest, strict=True)]
        return [float(coefficient) for coefficient in found]


def _least_squares(rows: list[list[mp.mpf]], values: list[mp.mpf]) -> mp.mpf:
    """The first unknown of an overdetermined system; 60 digits bear the normal equations."""
    size = len(rows[0])
    matrix, side = mp.matrix(size, size), mp.matrix(size, 1)
    for i in range(size):
        for j in range(i, size):
            matrix[i, j] = matrix[j, i] = mp.fsum(row[i] * row[j] for row in rows)
        side[i] = mp.fsum(row[i] * value for row, value in zip(rows, values, strict=True))
    return mp.lu_solve(matrix, side)[0]


def split_ln2(name: str) -> tuple[float, float]:
    """ln 2 in two parts, after Cody and Waite: the first short enough for exact products with n."""
    with mp.workdps(60):
        high = rounded(mp.log(2), PRECISION[name] - BITS_OF_N[name])
        return float(high), float(rounded(mp.log(2) - high, PRECISION[name]))


def written(values: tuple[float, ...] | list[float], name: str) -> str:
    """A tuple of literals, each as short as ``name`` allows."""
    kind = {"float": np.float32, "double": np.float64}[name]
    return f"({', '.join(str(kind(value)) for value in values)})"


def print_tables() -> None:
    """Print the module of tables."""
    print('"""Constants of the elementary functions; generated by ``tests/benchmarks/vector_math_errors.py --derive``.')
    print('\nPolynomials by format, the coefficient of the constant term first.\n"""\n')
    print(f"TANH_SWITCH = {TANH_SWITCH}\nERF_SWITCH = {ERF_SWITCH}\n# Just above where erf rounds to 1.")
    print("ERF_IS_ONE = {" + ", ".join(f'"{name}": {value}' for name, value in ERF_IS_ONE.items()) + "}\n")
    print("# ln 2 in two parts; the product of the first with an exponent is exact.")
    print("LN2 = {" + ", ".join(f'"{name}": {written(split_ln2(name), name)}' for name in PRECISION) + "}")
    for title, fit in FITS.items():
        print(f"\n# {fit.comment}")
        print(f"{title} = {{" + ", ".join(f'"{name}": {written(derive(fit, name), name)}' for name in PRECISION) + "}")


# Measurement


def torch_erf(x: np.ndarray) -> np.ndarray:
    """erf in double."""
    return torch.special.erf(torch.from_numpy(x)).numpy()


DOUBLE_REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "math.exp": np.exp,
    "math.exp2": np.exp2,
    "math.log": np.log,
    "math.log2": np.log2,
    "math.tanh": np.tanh,
    "math.erf": torch_erf,
    "math.rsqrt": lambda x: 1 / np.sqrt(x),
    "math.sqrt": np.sqrt,
    "math.floor": np.floor,
    "math.ceil": np.ceil,
    "math.roundeven": np.rint,
    "math.absf": np.abs,
}
EXACT_REFERENCES: dict[str, Function] = {
    "math.exp": mp.exp,
    "math.exp2": lambda x: mp.power(2, x),
    "math.log": mp.log,
    "math.log2": lambda x: mp.log(x) / mp.log(2),
    "math.tanh": mp.tanh,
    "math.erf": mp.erf,
    "math.rsqrt": lambda x: 1 / mp.sqrt(x),
    "math.sqrt": mp.sqrt,
}
BLOCK = 1 << 16


def evaluate(name: str, kind: IRType, x: np.ndarray, chosen: target.Target, lanes: int = 16) -> np.ndarray:
    """The function ``name`` of ``x``, compiled for ``chosen`` with vectors of ``lanes`` lanes (0: scalars).

    ``x`` has the elements of ``kind``; those of a bfloat are given as uint16.
    """
    step = max(lanes, 1)
    padded = np.zeros(-(-len(x) // step) * step, x.dtype)
    padded[: len(x)] = x
    # All bits set is a NaN in every format.
    result = np.full(padded.nbytes, 0xFF, np.uint8).view(x.dtype)
    emit = FUNCTIONS[name] if lanes else lambda f, vector: f.splat(FUNCTIONS[name](f, f.extract(vector, 0)), 1)
    run(elementwise(kind, kind, len(padded), step, emit), "f", padded, result, compile_for=chosen)
    return result[: len(x)]


def float_errors(name: str, x: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Errors of float results in ulp; infinite where one is NaN or infinite and the other is not."""
    with np.errstate(all="ignore"):
        exact = DOUBLE_REFERENCES[name](x.astype(np.float64))
        # Beyond the largest float, infinity stands for the next power of two, if rounding gives infinity too.
        given = result.astype(np.float64)
        overflowed = np.isinf(given) & np.isfinite(exact) & (np.abs(exact) > np.finfo(np.float32).max)
        given = np.where(overflowed, np.copysign(2.0**128, given), given)
        exact = np.where(overflowed, np.clip(exact, -(2.0**128), 2.0**128), exact)
        ulp = np.exp2(np.maximum(np.frexp(exact)[1] - 24, -149).astype(np.float64))
        same = (given == exact) | (np.isnan(given) & np.isnan(exact))
        errors = np.abs(given - exact) / ulp
    return np.where(same, 0.0, np.where(np.isfinite(errors), errors, np.inf))


def double_errors(name: str, x: np.ndarray, result: np.ndarray) -> list[float]:
    """Errors of double results in ulp, for operands whose result is finite."""
    errors = []
    with mp.workdps(40):
        for operand, given in zip(x.tolist(), result.tolist(), strict=True):
            exact = EXACT_REFERENCES[name](mp.mpf(operand))
            ulp = mp.ldexp(1, max(mp.frexp(exact)[1] - 53, -1074))
            errors.append(float(abs(given - exact) / ulp) if math.isfinite(given) else math.inf)
    return errors


def double_points(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Random doubles where ``name`` is defined and finite: of any exponent, where it varies, and subnormal ones."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2**64, count, np.uint64).view(np.float64)
    low, high = {
        "math.exp": (-745.5, 709.7),
        "math.exp2": (-1075.5, 1023.9),
        "math.tanh": (-20.0, 20.0),
        "math.erf": (-7.0, 7.0),
    }.get(name, (0.0, 2.0))
    subnormal = generator.integers(1, 2**52, count // 8, np.uint64).view(np.float64)
    x = np.concatenate([bits, generator.uniform(low, high, count), generator.uniform(-1, 1, count), subnormal])
    x = x[np.isfinite(x)]
    if name in ("math.tanh", "math.erf"):
        return x
    return x[(x >= low) & (x <= high)] if low < 0 else np.abs(x[x != 0])


def sweep_floats(name: str, chosen: target.Target, stride: int) -> tuple[float, float]:
    """The largest error over every ``stride``-th float, and the operand that has it."""
    worst, where = 0.0, math.nan
    for start in range(0, 2**32, BLOCK * 64 * stride):
        bits = np.arange(start, min(start + BLOCK * 64 * stride, 2**32), stride, dtype=np.uint64)
        x = bits.astype(np.uint32).view(np.float32)
        errors = float_errors(name, x, evaluate(name, FLOAT, x, chosen))
        index = int(np.argmax(errors))
        if errors[index] > worst:
            worst, where = float(errors[index]), float(x[index])
    return worst, where


def main() -> None:
    """Print the tables, or the errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--derive", action="store_true", help="print the module of coefficients")
    parser.add_argument("--stride", type=int, default=61, help="measure every so many floats (default: 61)")
    parser.add_argument("--doubles", type=int, default=20000, help="about how many doubles to measure")
    arguments = parser.parse_args()
    if arguments.derive:
        print_tables()
        return
    for chosen in map(target.named, target.runnable(hwcap.cpu_features(), platform.machine())):
        print(f"{chosen.name:16}{'float':>10}{'at':>18}{'double':>10}{'bound':>8}")
        for name in EXACT_REFERENCES:
            worst, where = sweep_floats(name, chosen, arguments.stride)
            x = double_points(name, arguments.doubles // 3)
            doubles = max(double_errors(name, x, evaluate(name, DOUBLE, x, chosen)))
            print(f"{name:16}{worst:10.3f}{where:18.9g}{doubles:10.3f}{MAX_ULP[name]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
