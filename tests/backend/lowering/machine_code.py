"""The assembly of a kernel in straight pieces, for tests of what its inner loops are made of."""

import re

from tensor_kernels import KernelCase

from hf_tle_int8.backend import codegen, target

_BRANCH = re.compile(r"j\w+|b|b\.\w+|cbn?z|tbn?z|ret\w*")


def pieces(case: KernelCase, name: str) -> list[list[str]]:
    """The instructions between labels and branches, each with its operands, as the target ``name`` has them."""
    return [piece for _, piece in _labelled(case, name)]


def _labelled(case: KernelCase, name: str) -> list[tuple[str, list[str]]]:
    """The pieces, each with the label before it."""
    chosen = target.named(name)
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in codegen.compile_module(chosen, case.lowered(chosen).body).assembly.splitlines():
        text = line.strip()
        if text.endswith("APP"):  # around an empty instruction
            continue
        if text.startswith((".L", "#", "//")) or (text and not line[0].isspace()):
            found.append((text.split(":")[0], []))
        elif text and not text.startswith("."):
            found[-1][1].append(re.sub(r"\s+", " ", text))
            if _BRANCH.fullmatch(text.split()[0]):
                found.append(("", []))
    return found


def count(piece: list[str], pattern: str) -> int:
    """How many instructions match from their beginning."""
    return sum(re.match(pattern, instruction) is not None for instruction in piece)


def busiest(case: KernelCase, name: str, pattern: str) -> list[str]:
    """The piece with most instructions that match."""
    return max(pieces(case, name), key=lambda piece: count(piece, pattern))


def innermost_loop(case: KernelCase, name: str, pattern: str) -> list[str]:
    """The piece with most instructions that match, of those that are loops: they end with a branch to their label."""
    loops = [piece for label, piece in _labelled(case, name) if piece and piece[-1].split()[-1] == label]
    return max(loops, key=lambda piece: count(piece, pattern))
