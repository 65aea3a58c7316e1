import ctypes

import pytest

from hf_tle_int8.backend import target
from hf_tle_int8.bench import tile_configuration
from hf_tle_int8.bench.tile_configuration import TileConfiguration

# Intel SDM, volume 1, "TILECFG": palette 1; the bytes of a row of each tile from 16 on, their rows from 48 on.
ONE_TILE = bytes(64 if at == 16 else 4 if at == 48 else at == 0 for at in range(64))


def test_nothing_where_there_are_no_tiles():
    with TileConfiguration(target.named("avx2")).kept():
        pass


@pytest.mark.skipif(not target.host().tile_registers, reason="this CPU has no tile registers")
def test_what_a_library_configured_is_there_in_its_next_call():
    tiles, code = TileConfiguration(target.host()), TileConfiguration(target.host())
    found = ctypes.create_string_buffer(64)
    with tiles.kept():
        code._store(found)
        assert not any(found.raw)
    with tiles.kept():
        code._load(ctypes.create_string_buffer(ONE_TILE, 64))
    code._release()
    with tiles.kept():
        code._store(found)
        assert found.raw == ONE_TILE
    code._release()


def test_the_code_is_legal_for_every_target_with_tiles():
    for chosen in target.TARGETS.values():
        if chosen.tile_registers:
            text = tile_configuration.codegen.compile_module(chosen, tile_configuration._BODY).assembly
            assert [text.count(f"\t{name}") for name in ("ldtilecfg", "sttilecfg", "tilerelease")] == [1, 1, 1]
