"""`save` where things go wrong, or are not as usual: the earlier file is whole, or the new one is.

A full disk, a folder or a disk that may only be read, links, modes and owners, processes that are
killed while they save.
"""

import errno
import fcntl
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from skdisk import MLPDiskClassifier
from skdisk._inputs import file_format

N_ROUNDS, N_ROUNDS_LONG = 5, 1000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "clf.safetensors"


@pytest.fixture(scope="module")
def clf(disk):
    return train(*disk, n_epochs=2)


@pytest.fixture(scope="module")
def other(disk):
    return train(*disk, n_epochs=3)


def train(X, y, n_epochs, hidden=(8,)):
    return MLPDiskClassifier(hidden, max_epochs=n_epochs, random_state=0).fit(X, y)


def count_epochs(path):
    return MLPDiskClassifier.load(path).n_iter_


def list_names(path):
    return sorted(os.listdir(path.parent))


def get_mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def small_disk(path):
    """Put a disk of 64 kilobytes where the file will be."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path.parent]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may put a disk there, and not in every container")
    yield path.parent
    subprocess.run(["umount", path.parent], check=True)


def test_on_a_full_disk_the_earlier_file_stays_whole(small_disk, clf, other, path):
    clf.save(path)
    before = path.read_bytes()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(2**20))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        other.save(path)
    assert list_names(path) == ["clf.safetensors", "filler"]
    assert path.read_bytes() == before
    filler.unlink()
    other.save(path)
    assert count_epochs(path) == 3


def test_a_file_that_may_not_grow_leaves_the_earlier_one(clf, other, path):
    clf.save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            other.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list_names(path) == [path.name]
    assert path.read_bytes() == before


def test_a_disk_that_may_only_be_read_is_left_alone(small_disk, clf, other, path):
    clf.save(path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for place in (path, path.with_name("new")):
        with pytest.raises(OSError, match=f"Read-only file system: '{place}'") as caught:
            other.save(place)
        assert caught.value.errno == errno.EROFS
    assert count_epochs(path) == 2


@pytest.fixture
def place_of_others(clf, path):
    """Save a file where everybody may look, and become somebody who is not root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / path.name
        clf.save(path)
        me = os.geteuid()

        def forbid(place, mode):
            place.chmod(mode)
            if me == 0:
                os.seteuid(65534)

        yield path, forbid
        os.seteuid(me)
        os.chmod(folder, 0o755)


@pytest.mark.parametrize(("of", "mode"), [("folder", 0o555), ("file", 0o444)])
def test_what_may_only_be_read_is_left_alone(place_of_others, other, of, mode):
    path, forbid = place_of_others
    forbid({"folder": path.parent, "file": path}[of], mode)
    with pytest.raises(PermissionError, match=f"Permission denied: '{path}'"):
        other.save(path)
    assert count_epochs(path) == 2
    assert list_names(path) == [path.name]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077], ids=oct)
def test_a_new_file_has_the_mode_that_umask_leaves(clf, path, mask):
    before = os.umask(mask)
    try:
        clf.save(path)
    finally:
        os.umask(before)
    assert get_mode(path) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755], ids=oct)
def test_a_mode_is_kept_and_while_it_is_written_only_its_owner_reads_the_file(
    clf, path, mode, monkeypatch
):
    path.touch()
    path.chmod(mode)
    seen = []

    def look(descriptor):
        [temporary] = path.parent.glob(".skdisk-*")
        seen.append(get_mode(temporary))

    monkeypatch.setattr(os, "fsync", look)
    clf.save(path)
    assert seen == [0o600]
    assert get_mode(path) == mode


@needs_root
def test_owner_and_group_are_kept(clf, path):
    path.touch()
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    clf.save(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, get_mode(path)) == (1234, 5678, 0o640)


def test_of_a_hard_link_the_other_name_keeps_the_earlier_file(clf, other, path):
    clf.save(path)
    backup = path.with_name("backup")
    os.link(path, backup)
    other.save(path)
    assert (count_epochs(backup), count_epochs(path)) == (2, 3)


@pytest.mark.parametrize("is_there", [True, False])
def test_of_symbolic_links_the_file_that_they_lead_to_is_replaced(clf, other, path, is_there):
    target = path.parent.parent / "target"
    path.symlink_to("../target")
    second = path.with_name("second")
    second.symlink_to(path.name)
    if is_there:
        clf.save(target)
    other.save(second)
    assert second.is_symlink()
    assert path.is_symlink()
    assert not target.is_symlink()
    assert {count_epochs(place) for place in (second, path, target)} == {3}


def test_a_save_removes_what_a_killed_one_has_left_and_nothing_else(clf, path):
    left_over, in_use = (path.with_name(f".skdisk-{digit * 32}") for digit in "ab")
    others = [path.with_name(name) for name in (".skdisk-notes", f"x.skdisk-{'a' * 32}")]
    for file in (left_over, in_use, *others):
        file.write_bytes(b"1")
    with in_use.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clf.save(path)
        assert {*path.parent.iterdir()} == {path, in_use, *others}
    clf.save(path)
    assert {*path.parent.iterdir()} == {path, *others}


def test_a_file_that_another_save_took_for_left_over_is_written_anew(clf, path, monkeypatch):
    # Another process has looked between the making of the file and its lock.
    created, create = [], file_format._create

    def create_and_lose(place, mode):
        created.append(place)
        file = create(place, mode)
        if len(created) == 1:
            place.unlink()
        return file

    monkeypatch.setattr(file_format, "_create", create_and_lose)
    clf.save(path)
    assert len(set(created)) == 2
    assert count_epochs(path) == 2
    assert list_names(path) == [path.name]


def test_what_is_no_file_but_named_as_one_left_over_stays(clf, path):
    folder, pipe = (path.with_name(f".skdisk-{letter * 32}") for letter in "ab")
    folder.mkdir()
    os.mkfifo(pipe)
    clf.save(path)
    assert list_names(path) == [folder.name, pipe.name, path.name]


SAVE_AND_BE_KILLED = """
import os, signal, sys, time
from skdisk import MLPDiskClassifier

path, *sources = sys.argv[1:]
clfs = [MLPDiskClassifier.load(source) for source in sources]
for line in sys.stdin:
    children = []
    for clf in clfs:
        children.append(os.fork())
        if children[-1] == 0:
            try:
                while True:
                    clf.save(path)
            finally:
                os._exit(1)
    time.sleep(float(line))
    for child in children:
        os.kill(child, signal.SIGKILL)
    signals = [os.WTERMSIG(os.waitpid(child, 0)[1]) for child in children]
    print(*signals, flush=True)
"""


def test_where_saves_are_killed_the_file_is_one_of_them_and_the_next_save_tidies_up(
    disk, path, campaign
):
    """Two processes save to one file, again and again, until both are killed at one moment."""
    clfs = [train(*disk, n_epochs, (50, 50)) for n_epochs in (1, 2)]
    sources = [path.parent.parent / name for name in ("first", "second")]
    for clf, source in zip(clfs, sources, strict=True):
        clf.save(source)
    expected = [clf.predict_proba(disk[0]) for clf in clfs]
    rng = random.Random(campaign.seed)
    n_left_over = n_rounds = 0
    clfs[0].save(path)
    program = [sys.executable, "-c", SAVE_AND_BE_KILLED, path, *sources]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, **pipes) as process:
        for _ in range(campaign.choose(N_ROUNDS, N_ROUNDS_LONG)):
            process.stdin.write(f"{rng.uniform(0, 0.03)}\n")
            process.stdin.flush()
            # Each was killed, and had no other error before.
            assert process.stdout.readline().split() == ["9", "9"]
            loaded = MLPDiskClassifier.load(path)
            np.testing.assert_array_equal(
                loaded.predict_proba(disk[0]), expected[loaded.n_iter_ - 1]
            )
            n_left_over += len(list_names(path)) - 1
            n_rounds += 1
            clfs[n_rounds % 2].save(path)
            assert list_names(path) == [path.name]
            assert count_epochs(path) == 1 + n_rounds % 2
        process.stdin.close()
        process.wait()
    campaign.record(kills=2 * n_rounds, left_over_and_removed=n_left_over)
