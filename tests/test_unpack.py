"""Unpacking archives that nobody vouches for: what they may hold, and what ends it."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from mirror import genre_files, tar_of, zip_of

from mgr_jax.datasets import members, unpack
from mgr_jax.datasets.members import ArchiveError

FILES = {"genres/blues/blues.00000.wav": b"a" * 3_000, "genres/rock/r.wav": b"b" * 70}

PACKERS = {
    "tar": lambda files: tar_of(files, "w"),
    "tar.gz": tar_of,
    "stored zip": lambda files: zip_of(files, zipfile.ZIP_STORED),
    "deflated zip": zip_of,
    "bzip2 zip": lambda files: zip_of(files, zipfile.ZIP_BZIP2),
}
every_kind = pytest.mark.parametrize("kind", PACKERS)


def unpacked(tmp_path, data, wanted=("genres",), most_bytes=10**6, most_members=1_000):
    """Unpacks an archive's bytes, and returns what came of it and the files by name."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "archive"
    path.write_bytes(data)
    into = tmp_path / "into"
    result = unpack.unpack(
        path, into, wanted, most_bytes=most_bytes, most_members=most_members
    )
    return result, contents(into)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(tmp_path, data, **bounds):
    """Why an archive is refused; nothing may lie outside the folder it went to."""
    with pytest.raises(ArchiveError) as info:
        unpacked(tmp_path, data, **bounds)
    assert set(os.listdir(tmp_path)) <= {"archive", "into"}
    assert "\n" not in str(info.value)
    return str(info.value)


def tar_with(*infos, files=FILES):
    """A tar of good files, and then of members that are given."""
    return tar_of(files, members=infos)


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@every_kind
def test_the_files_below_the_wanted_folder_come_out_as_they_went_in(tmp_path, kind):
    files = genre_files() | {"genres/empty.wav": b""}
    others = {"README": b"x", "genres_2/a.wav": b"y", "data/genres/a.wav": b"z"}
    result, found = unpacked(tmp_path, PACKERS[kind](others | files))
    assert found == files
    assert result.files == len(files)
    assert result.num_bytes == sum(map(len, files.values()))
    assert result.folders == ("genres",)


@every_kind
def test_what_macos_leaves_is_dropped(tmp_path, kind):
    junk = {
        "genres/blues/._blues.00000.wav": b"x",
        "genres/.DS_Store": b"x",
        "genres/__MACOSX/a.wav": b"x",
        "._genres": b"x",
        "__MACOSX/genres/._a.wav": b"x",
    }
    assert unpacked(tmp_path, PACKERS[kind](junk | FILES))[1] == FILES


@every_kind
def test_an_archive_without_the_wanted_folder_is_refused(tmp_path, kind):
    files = {"music/a.wav": b"x", "genres/._a.wav": b"x", "genres": b"a file"}
    message = refusal(tmp_path, PACKERS[kind](files))
    assert message == "holds no genres/"


def test_a_folder_within_a_folder_may_be_wanted(tmp_path):
    files = {"Data/genres_original/rock/a.wav": b"x"}
    others = {"Data/images/a.png": b"y", "Data/genres_original": b"z"}
    wanted = ("genres", "Data/genres_original")
    result, found = unpacked(tmp_path, tar_of(files | others), wanted)
    assert found == files
    assert result.folders == ("Data/genres_original",)


def test_names_that_begin_with_a_dot_and_slash_are_the_same_names(tmp_path):
    files = {f"./{name}": data for name, data in FILES.items()}
    assert unpacked(tmp_path, tar_of(files))[1] == FILES


def test_a_file_is_made_with_plain_permissions(tmp_path):
    info = member("genres/a.wav", size=3)
    info.mode = 0o7555
    unpacked(tmp_path, tar_with(info))
    mode = stat.S_IMODE((tmp_path / "into" / "genres" / "a.wav").stat().st_mode)
    (tmp_path / "plain").touch()
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    "name",
    [
        "/genres/a.wav",
        "//genres/a.wav",
        "../a.wav",
        "genres/../../a.wav",
        "genres/blues/..",
        "C:/genres/a.wav",
        "genres/c:a.wav",
        "genres\\..\\..\\a.wav",
        "\\\\host\\genres\\a.wav",
    ],
)
@every_kind
def test_a_name_that_leads_elsewhere_ends_it(tmp_path, kind, name):
    message = refusal(tmp_path, PACKERS[kind](FILES | {name: b"x"}))
    assert "not safe" in message
    assert repr(name) in message


def test_a_name_that_no_disk_takes_ends_it(tmp_path):
    name = f"genres/blues/{'x' * 300}.wav"
    assert "too long for a file" in refusal(tmp_path, tar_of({name: b"x"}))


def test_a_name_with_a_nul_ends_it(tmp_path):
    data = zip_of(FILES | {"genres/a#../../b.wav": b"x"}).replace(b"a#..", b"a\0..")
    assert "not safe" in refusal(tmp_path, data)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("genres/a.wav", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (member("genres/a.wav", tarfile.SYMTYPE, "blues"), "a link"),
        (member("genres/a.wav", tarfile.LNKTYPE, "genres/rock/r.wav"), "a link"),
        (member("else/a.wav", tarfile.LNKTYPE, "/etc/passwd"), "a link"),
        (member("genres/a.wav", tarfile.CHRTYPE), "a device"),
        (member("genres/a.wav", tarfile.BLKTYPE), "a device"),
        (member("genres/a.wav", tarfile.FIFOTYPE), "a device"),
        (member("genres/a.wav", b"Z"), "unknown kind"),
    ],
)
def test_a_tar_member_that_is_no_file_and_no_folder_ends_it(tmp_path, info, reason):
    assert reason in refusal(tmp_path, tar_with(info))


def test_a_link_that_later_files_would_go_through_ends_it(tmp_path):
    link = member("genres", tarfile.SYMTYPE, str(tmp_path / "outside"))
    (tmp_path / "outside").mkdir()
    data = tar_with(link, member("genres/a.wav", size=1), files={})
    with pytest.raises(ArchiveError, match="a link"):
        unpacked(tmp_path, data)
    assert not os.listdir(tmp_path / "outside")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "a device"), (stat.S_IFCHR, "a device")],
)
def test_a_zip_member_that_is_no_file_and_no_folder_ends_it(tmp_path, kind, reason):
    out = io.BytesIO(zip_of(FILES))
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo("genres/a.wav")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    message = refusal(tmp_path, out.getvalue())
    assert message == f"its member 'genres/a.wav' is not safe: {reason}" + (
        "" if reason == "a link" else ", or of an unknown kind"
    )


def test_an_encrypted_member_ends_it(tmp_path):
    data = bytearray(zip_of({"genres/a.wav": b"x" * 50}))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refusal(tmp_path, bytes(data))


def test_a_method_that_is_not_known_ends_it(tmp_path):
    data = zip_of({"genres/a.wav": b"x" * 50}, zipfile.ZIP_LZMA)
    assert "method 14" in refusal(tmp_path, data)


def test_a_file_with_holes_ends_it(tmp_path):
    info = member("genres/a.wav")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "genres/a.wav",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(10**12),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    assert "holes" in refusal(tmp_path, out.getvalue())


@pytest.mark.parametrize("kind", ["tar.gz", "deflated zip", "bzip2 zip"])
def test_a_small_archive_that_unpacks_to_much_is_stopped_at_the_bound(tmp_path, kind):
    data = PACKERS[kind]({"genres/a.wav": bytes(20_000_000)})
    assert len(data) < 50_000
    assert "more than it should" in refusal(tmp_path, data, most_bytes=500_000)
    written = sum(map(len, contents(tmp_path / "into").values()))
    assert written <= 500_000


@every_kind
def test_the_bound_holds_for_all_files_together(tmp_path, kind):
    data = PACKERS[kind]({f"genres/{k}.wav": bytes(1_000) for k in range(10)})
    assert unpacked(tmp_path / "a", data, most_bytes=10_000)[0].files == 10
    assert "more than it should" in refusal(tmp_path / "b", data, most_bytes=9_999)


@pytest.mark.parametrize("kind", ["deflated zip", "bzip2 zip"])
def test_no_piece_of_a_bomb_is_large(tmp_path, kind):
    path = tmp_path / "archive"
    path.write_bytes(PACKERS[kind]({"genres/a.wav": bytes(20_000_000)}))
    found = members.members(path)
    assert max(map(len, next(found).pieces())) <= 1 << 18


def test_what_is_left_out_of_a_tar_counts_too(tmp_path):
    data = tar_with(member("else/a.wav", size=10_000_000))
    assert "more than it should" in refusal(tmp_path, data, most_bytes=1_000_000)


def test_a_tar_whose_header_names_an_endless_name_is_stopped(tmp_path):
    info = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=50_000_000)
    header = info.tobuf(tarfile.GNU_FORMAT)
    data = gzip.compress(header + bytes(50_000_000))
    assert "more in it" in refusal(tmp_path, data, most_bytes=10**9)


@every_kind
def test_more_members_than_the_bound_end_it(tmp_path, kind):
    data = PACKERS[kind]({f"else/{k}": b"" for k in range(20)} | FILES)
    assert unpacked(tmp_path / "a", data, most_members=22)[1] == FILES
    assert "21 members" in refusal(tmp_path / "b", data, most_members=21)


@pytest.mark.parametrize("claim", [10, 10**9])
@pytest.mark.parametrize("kind", ["stored zip", "deflated zip", "bzip2 zip"])
def test_a_zip_that_lies_about_a_size_is_damaged(tmp_path, kind, claim):
    data = bytearray(PACKERS[kind]({"genres/a.wav": bytes(5_000)}))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<I", claim)
    assert "damaged" in refusal(tmp_path, bytes(data))


def test_a_tar_that_lies_about_a_size_is_damaged(tmp_path):
    data = bytearray(tar_of({"genres/a.wav": b"x" * 5_000}, "w"))
    header = tarfile.TarInfo.frombuf(bytes(data[:512]), "utf-8", "strict")
    header.size = 900_000
    data[:512] = header.tobuf()
    assert "damaged" in refusal(tmp_path, bytes(data))


@every_kind
def test_an_archive_cut_anywhere_is_damaged(tmp_path, kind):
    data = PACKERS[kind](FILES)
    # A tar ends in zeros, of which the first 512 bytes are enough.
    end = len(data) - (10_240 if kind == "tar" else 0)
    last = max(1, len(data.rstrip(b"\0")) if kind == "tar" else end)
    for number, cut in enumerate(range(0, last, max(1, last // 40))):
        message = refusal(tmp_path / str(number), data[:cut])
        assert "cut off" in message or "is no .zip" in message


@pytest.mark.parametrize("kind", ["tar.gz", "deflated zip", "bzip2 zip", "stored zip"])
def test_a_changed_byte_is_never_unpacked_as_if_it_were_right(tmp_path, kind):
    data = PACKERS[kind](FILES)
    draw = np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(data)
        damaged[draw.integers(len(data))] ^= 1 << draw.integers(8)
        try:
            _, found = unpacked(tmp_path / str(number), bytes(damaged))
        except ArchiveError:
            continue
        # A name may have changed; nothing vouches for those in a zip.
        assert set(found.values()) <= set(FILES.values())


def test_a_tar_that_is_cut_between_two_members_is_damaged(tmp_path):
    data = tar_of(FILES, "w")
    first = 512 + 3_072
    assert data[first:].startswith(b"genres/rock/")
    assert "damaged" in refusal(tmp_path / "a", data[:first])
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    assert "damaged" in refusal(tmp_path / "b", data[:end])
    assert unpacked(tmp_path / "c", data[: end + 512])[1] == FILES


def test_a_zip_whose_member_is_not_where_it_should_be_is_damaged(tmp_path):
    data = zip_of(FILES).replace(b"PK\3\4", b"PK\3\5").replace(b"PK\3\5", b"PK\3\4", 1)
    assert "Bad magic number" in refusal(tmp_path, data)


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path):
    data = bytearray(tar_of(FILES, "w"))
    data[512 + 3_072 + 10] ^= 1
    assert "damaged" in refusal(tmp_path, bytes(data))


def test_a_damaged_member_is_found_by_its_checksum(tmp_path):
    data = zip_of(FILES, zipfile.ZIP_STORED).replace(b"a" * 2_000, b"c" * 2_000)
    assert "Bad CRC-32" in refusal(tmp_path, data)


@every_kind
def test_a_member_that_is_a_file_and_a_folder_ends_it(tmp_path, kind):
    files = {"genres/a": b"x", "genres/a/b.wav": b"y"}
    assert "file and a folder" in refusal(tmp_path, PACKERS[kind](files))


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\0" * 2_000])
def test_what_is_no_archive_is_said_to_be_none(tmp_path, data):
    assert refusal(tmp_path, data) == "is no .zip, .tar.gz or .tar archive"
    assert not members.is_archive(tmp_path / "archive")


@every_kind
def test_an_archive_is_recognised_by_the_folder_it_holds(tmp_path, kind):
    path = tmp_path / "archive"
    path.write_bytes(PACKERS[kind]({"._genres": b"x", "other/x": b"y"} | FILES))
    assert unpack.first_folder(path, ["fma_small", "genres"]) == "genres"
    assert unpack.first_folder(path, ["fma_small"]) == ""
    assert members.is_archive(path)


def test_moving_replaces_files_of_that_name_and_no_other(tmp_path):
    staged, into = tmp_path / "staged", tmp_path / "into"
    for path, text in (
        (staged / "genres/a/1.wav", "new"),
        (staged / "genres/b/2.wav", "new"),
        (into / "genres/a/1.wav", "old"),
        (into / "genres/a/3.wav", "old"),
        (into / "mine.txt", "old"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    unpack.move(staged, into)
    assert contents(into) == {
        "genres/a/1.wav": b"new",
        "genres/a/3.wav": b"old",
        "genres/b/2.wav": b"new",
        "mine.txt": b"old",
    }
    assert not staged.exists()
