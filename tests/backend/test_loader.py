import subprocess
import sys

import pytest

from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.loader import LoadedObject

BODY = "define void @f(ptr %a) #0 {\n  store i32 7, ptr %a, align 4\n  ret void\n}"


def test_two_objects_with_the_same_symbol_live_side_by_side():
    host = target.host()
    objects = [
        LoadedObject(codegen.compile_module(host, BODY.replace("7", str(value))).object_code, host, ["f"])
        for value in (1, 2)
    ]
    import ctypes

    results = []
    for loaded in objects:
        cell = ctypes.c_int32(0)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.addresses["f"])(ctypes.addressof(cell))
        results.append(cell.value)
    assert results == [1, 2]


def test_a_missing_symbol_is_an_error():
    host = target.host()
    code = codegen.compile_module(host, BODY).object_code
    with pytest.raises(RuntimeError, match="no_such_symbol"):
        LoadedObject(code, host, ["no_such_symbol"])


FAR_APART = """
import ctypes, mmap
from hf_tle_int8.backend import codegen, target
from hf_tle_int8.backend.loader import LoadedObject

TABLE = ", ".join(f"i32 {number}" for number in range(1 << 14))
BODY = f'''
@table = internal constant [16384 x i32] [{TABLE}]
define i32 @f(i64 %i) #0 {{
  %place = getelementptr i32, ptr @table, i64 %i
  %value = load i32, ptr %place, align 4
  ret i32 %value
}}'''
code = codegen.compile_module(target.host(), BODY).object_code
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def reserve(size):
    no_reserve = 0x4000
    start = libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve, -1, 0)
    assert start != ctypes.c_void_p(-1).value
    return start


# Linux takes the highest gap that is large enough: code fits into pages above this, and its table does not.
start, size = reserve(16 << 30), 16 << 30
while (gap := reserve(1 << 16)) > start:
    pass
assert libc.munmap(gap, 1 << 16) == 0
for place in range(start + size - (1 << 20), start + size, 1 << 16):
    assert libc.munmap(place, mmap.PAGESIZE) == 0
loaded = [LoadedObject(code, target.host(), ["f"]) for _ in range(4)]
print(*(ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)(one.addresses["f"])(16383) for one in loaded))
"""


def test_parts_of_an_object_are_within_reach_of_each_other():
    done = subprocess.run([sys.executable, "-c", FAR_APART], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "16383 16383 16383 16383\n"), done.stderr
