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
