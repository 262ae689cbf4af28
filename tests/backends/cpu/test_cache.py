"""The cache on disk: what comes back, and that nothing on disk can break a caller."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from tinyinfer.backends.cpu.cache import KernelCache


def only_file(directory):
    (path,) = [p for p in directory.rglob("*") if p.is_file()]
    return path


def test_round_trip(tmp_path):
    cache = KernelCache(tmp_path / "new" / "folder")
    assert cache.get("abc") is None
    cache.put("abc", b"code")
    cache.put_many({"abd": b"", "xyz": b"\0" * 1000})
    assert cache.get("abc") == b"code"
    assert cache.get_many(["abc", "abd", "missing", "xyz"]) == {
        "abc": b"code",
        "abd": b"",
        "xyz": b"\0" * 1000,
    }
    assert KernelCache(tmp_path / "new" / "folder").get("xyz") == b"\0" * 1000
    cache.put("abc", b"other")
    assert cache.get("abc") == b"other"


def test_info_and_clear(tmp_path):
    cache = KernelCache(tmp_path)
    assert cache.info().entries == cache.info().bytes == 0
    cache.put_many({f"key{i}": b"x" * 100 for i in range(5)})
    info = cache.info()
    assert info.entries == 5 and info.bytes >= 500 and info.directory == tmp_path
    cache.clear()
    assert cache.info().entries == 0 and cache.get("key0") is None


@pytest.mark.parametrize("keep", [0, 5, 31, 32, 40])
def test_truncated_entry_is_a_miss_and_replaced(tmp_path, keep):
    cache = KernelCache(tmp_path)
    cache.put("key", b"payload" * 10)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.get("key") is None
    cache.put("key", b"again")
    assert cache.get("key") == b"again"


def test_any_changed_byte_is_a_miss(tmp_path):
    cache = KernelCache(tmp_path)
    cache.put("key", b"payload")
    path = only_file(tmp_path)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert cache.get("key") is None, position
    path.write_bytes(good + b"x")
    assert cache.get("key") is None


def test_an_entry_under_another_name_is_a_miss(tmp_path):
    cache = KernelCache(tmp_path)
    cache.put("abone", b"payload")
    path = only_file(tmp_path)
    path.rename(path.with_name("abtwo" + path.suffix))
    assert cache.get("abtwo") is None


def test_unusable_folders_do_no_harm(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = KernelCache(blocked)
    cache.put("key", b"payload")
    assert cache.get("key") is None and cache.info().entries == 0
    cache.clear()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    cache = KernelCache(tmp_path)
    cache.put("aakey", b"payload")
    for folder in (tmp_path / "kernels", tmp_path / "kernels" / "aa"):
        folder.chmod(0o500)
    try:
        cache.put("aaother", b"payload")
        cache.put("bbother", b"payload")
        assert cache.get("aakey") == b"payload" and cache.get("aaother") is None
    finally:
        for folder in (tmp_path / "kernels", tmp_path / "kernels" / "aa"):
            folder.chmod(0o700)


def test_a_folder_where_an_entry_should_be(tmp_path):
    cache = KernelCache(tmp_path)
    cache.put("key", b"payload")
    path = only_file(tmp_path)
    path.unlink()
    path.mkdir()
    assert cache.get("key") is None
    cache.put("key", b"payload")
    assert cache.get("key") is None


def test_oldest_entries_go_first(tmp_path):
    cache = KernelCache(tmp_path, limit=10_000)
    for number in range(9):
        cache.put(f"key{number}", b"x" * 1000)
        when = time.time() - 1000 + number
        os.utime(tmp_path / "kernels" / "ke" / f"key{number}.kernel", (when, when))
    assert cache.info().entries == 9
    cache.put("new", b"x" * 1000)
    info = cache.info()
    assert info.bytes <= 0.8 * 10_000
    assert cache.get("new") and cache.get("key8") and cache.get("key0") is None
    KernelCache(tmp_path, limit=3000).put("last", b"x" * 1000)
    assert cache.get("last") and cache.info().bytes <= 3000


def test_used_entries_stay_young(tmp_path):
    cache = KernelCache(tmp_path)
    cache.put("key", b"payload")
    path = only_file(tmp_path)
    os.utime(path, (1, 1))
    assert cache.get("key") == b"payload"
    assert time.time() - path.stat().st_mtime < 3600


@pytest.mark.parametrize("key", ["", "../x", "a/b", "a.b", "a b"])
def test_keys_cannot_leave_the_folder(tmp_path, key):
    with pytest.raises(ValueError):
        KernelCache(tmp_path).get(key)
    with pytest.raises(ValueError):
        KernelCache(tmp_path).put(key, b"")


def test_many_processes_share_a_folder(tmp_path):
    """Writers and readers of the same few keys see nothing or a whole entry."""
    script = f"""
        from tinyinfer.backends.cpu.cache import KernelCache
        cache = KernelCache({str(tmp_path)!r}, limit=60_000)
        for turn in range(300):
            for key in range(8):
                found = cache.get(f"key{{key}}")
                assert found is None or found == bytes([key]) * (1000 + 997 * key), key
                if turn % 3 == 0:
                    cache.put(f"key{{key}}", bytes([key]) * (1000 + 997 * key))
    """
    children = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert KernelCache(tmp_path).info().entries == 8
