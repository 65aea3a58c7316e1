import os
import stat
import types
import warnings

import plugin_kernels as k
import pytest
import torch
import triton
from plugin_support import forget, registered, run_script
from triton.backends.compiler import GPUTarget

from hf_tle_int8.backend import cache_entry, codegen, pipeline, target
from hf_tle_int8.backend.cache_entry import BadEntryError, Entry

ENTRY = Entry("k", ("ptr", "i32"), b"\x7fELF object")


class TestFrame:
    def test_round_trip(self):
        assert cache_entry.unframe(cache_entry.frame(ENTRY, "key"), "key") == ENTRY

    def test_every_truncation_is_noticed(self):
        data = cache_entry.frame(ENTRY, "key")
        for size in range(len(data)):
            with pytest.raises(BadEntryError):
                cache_entry.unframe(data[:size], "key")

    def test_every_flipped_bit_is_noticed(self):
        data = cache_entry.frame(ENTRY, "key")
        for index in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[index] ^= 1 << bit
                with pytest.raises(BadEntryError):
                    cache_entry.unframe(bytes(changed), "key")

    def test_another_key_is_noticed(self):
        with pytest.raises(BadEntryError, match="another kernel or target"):
            cache_entry.unframe(cache_entry.frame(ENTRY, "key"), "other")

    def test_only_what_was_framed_here_was_made_here(self):
        data = cache_entry.frame(ENTRY, "key")
        assert cache_entry.made_here(data)
        assert not cache_entry.made_here(data + b"x")


class TestOwnership:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "k.obj"
        path.write_bytes(b"content")
        path.chmod(0o644)
        return path

    def test_own_files_are_read(self, path):
        assert cache_entry.read(path) == b"content"

    @pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o777])
    def test_files_that_others_may_write_are_not(self, path, mode):
        path.chmod(mode)
        with pytest.raises(BadEntryError, match="others may write"):
            cache_entry.read(path)

    def test_sealing_makes_them_readable(self, path):
        path.chmod(0o666)
        cache_entry.seal(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert cache_entry.read(path) == b"content"

    def test_symbolic_links_are_not_followed(self, path, tmp_path):
        (tmp_path / "link").symlink_to(path)
        with pytest.raises(BadEntryError, match="cannot be read"):
            cache_entry.read(tmp_path / "link")

    def test_folders_and_missing_files(self, tmp_path):
        with pytest.raises(BadEntryError, match="no regular file"):
            cache_entry.read(tmp_path)
        with pytest.raises(BadEntryError, match="cannot be read"):
            cache_entry.read(tmp_path / "none")

    def test_other_owners(self, path, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        with pytest.raises(BadEntryError, match="belongs to user"):
            cache_entry.read(path)


class TestInTritonsCache:
    """Each test spoils the entry of a kernel that copies, and runs it as a process would that has not compiled it."""

    @pytest.fixture(autouse=True)
    def _backend(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        with registered():
            self.folder = tmp_path
            self.run()
            self.anew()
            yield

    @property
    def path(self):
        return next(self.folder.rglob("copy_kernel.obj"))

    @staticmethod
    def run():
        x, y = torch.arange(4), torch.zeros(4, dtype=torch.int64)
        k.copy_kernel[(4,)](x, y)
        assert torch.equal(x, y)

    @staticmethod
    def anew():
        forget()
        cache_entry._made_here.clear()

    def check_recompiled(self, reason):
        with pytest.warns(RuntimeWarning, match=f"(?s){reason}.*was not run.*compiled again and replaced"):
            self.run()
        self.anew()
        self.check_loads()

    def check_loads(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.run()

    def test_a_good_entry_is_loaded(self, monkeypatch):
        monkeypatch.setattr(codegen, "compile_module", lambda *_: pytest.fail("compiled"))
        self.check_loads()

    @pytest.mark.parametrize("size", [0, 10, 100, -1])
    def test_truncated(self, size):
        self.path.write_bytes(self.path.read_bytes()[:size])
        self.check_recompiled("truncated")

    @pytest.mark.parametrize("position", [0, 20, 60, 200, -1])
    def test_flipped(self, position):
        data = bytearray(self.path.read_bytes())
        data[position] ^= 0x10
        self.path.write_bytes(data)
        self.check_recompiled("truncated|another")

    def test_object_of_another_kernel(self):
        other = k.place_kernel.warmup(torch.int32, grid=(1,))
        self.path.write_bytes(other.asm["obj"])
        cache_entry._made_here.clear()
        self.check_recompiled("another kernel")

    def test_object_of_another_target(self):
        good = self.path
        name = next(name for name in target.TARGETS if name != target.host().name)
        source = triton.compiler.ASTSource(k.copy_kernel, {"x": "*i64", "y": "*i64"})
        good.write_bytes(triton.compile(source, target=GPUTarget("cpu", name, 1)).asm["obj"])
        self.anew()
        self.check_recompiled("another kernel or target")

    def test_writable_by_others(self):
        self.path.chmod(0o666)
        self.check_recompiled("others may write")
        assert not self.path.stat().st_mode & 0o022

    @pytest.mark.skipif(os.geteuid() != 0, reason="changing the owner of a file needs root")
    def test_owned_by_another_user(self):
        os.chown(self.path, 4242, -1)
        self.check_recompiled("belongs to user 4242")
        assert self.path.stat().st_uid == os.geteuid()

    def test_an_entry_that_cannot_be_replaced(self, monkeypatch):
        from triton.runtime.cache import FileCacheManager

        def refuse(*arguments, **options):
            raise PermissionError("read-only")

        self.path.write_bytes(b"")
        monkeypatch.setattr(FileCacheManager, "put", refuse)
        with pytest.warns(RuntimeWarning, match=r"could not be replaced \(read-only\).*TRITON_CACHE_DIR"):
            self.run()

    def test_a_generous_umask_does_not_cost_a_compilation(self, monkeypatch):
        before = os.umask(0)
        try:
            k.copy_kernel[(1,)](torch.ones(1), torch.ones(1))
        finally:
            os.umask(before)
        self.anew()
        monkeypatch.setattr(codegen, "compile_module", lambda *_: pytest.fail("compiled"))
        k.copy_kernel[(1,)](torch.ones(1), torch.ones(1))

    def test_a_kernel_from_a_file(self, tmp_path):
        path = tmp_path / "copy.ttir"
        path.write_text(k.copy_kernel.warmup(torch.ones(1), torch.ones(1), grid=(1,)).asm["ttir"])
        for spoil in (False, True):
            if spoil:
                spoilt = max(tmp_path.rglob("*copy_kernel.obj"), key=lambda found: found.stat().st_mtime)
                spoilt.write_bytes(b"")
                cache_entry._made_here.clear()
            compiled = triton.compile(str(path))
            x, y = torch.ones(3), torch.zeros(3)
            if spoil:
                with pytest.warns(RuntimeWarning, match="truncated"):
                    compiled[(3, 1, 1)](x, y)
            else:
                compiled[(3, 1, 1)](x, y)
            assert torch.equal(x, y)

    def test_a_file_that_changed_is_not_compiled_again(self, tmp_path):
        class Source:
            path, ext = "kernel.ttir", "ttir"

            def __init__(self, *_):
                self.module = None

            def hash(self):
                return id(self)

        with pytest.raises(RuntimeError, match=r"kernel\.ttir has changed"):
            pipeline._read_again(Source(), None, types.SimpleNamespace())


def test_a_fresh_process_loads_without_compiling(tmp_path):
    script = """
    from hf_tle_int8.backend import codegen, pipeline
    compiled = []
    real = codegen.compile_module
    codegen.compile_module = lambda *arguments: compiled.append(1) or real(*arguments)
    x, y = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    k.copy_kernel[(4,)](x, y)
    assert torch.equal(x, y)
    print(len(compiled))
    """
    printed = [run_script(script, TRITON_CACHE_DIR=str(tmp_path)).strip() for _ in range(2)]
    assert printed == ["1", "0"]
