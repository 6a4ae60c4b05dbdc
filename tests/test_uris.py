"""Data and features in an object store; fsspec's in-memory one stands in for it."""

import importlib.util
import pathlib
import pickle
import tempfile

import fsspec
import pytest
import soundfile
from conftest import SHARED, config_for, contents, run_module, tone, write_music_folder
from fsspec.implementations.memory import MemoryFileSystem

from mgr_jax import audio, input_pipeline, main, prepare, shards, uris
from mgr_jax import config as config_lib
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS, load_tracks
from mgr_jax.uris import Uri


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty place in the store; what is fetched is kept below tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    place = uris.path(f"memory://{tmp_path.name}")
    yield place
    assert list(scratch.glob("mgr_jax_*")) == []
    place.rmtree()


def upload(folder: pathlib.Path, place: Uri) -> Uri:
    for path in folder.rglob("*"):
        if path.is_file():
            (place / path.relative_to(folder)).send(path)
    return place


@pytest.fixture(scope="module")
def local(music_folder, tmp_path_factory) -> dict[str, bytes]:
    """What is prepared of the music folder on this machine, in six shards."""
    config = config_for(music_folder, tmp_path_factory.mktemp("local"))
    return contents(prepare.prepare(config))


@pytest.fixture
def far(bucket, music_folder) -> Config:
    """The music folder, and the place for its features, both in the store."""
    return config_for(upload(music_folder, bucket / music_folder.name), bucket / "f")


def test_an_address_is_a_path():
    path = uris.path("gs://bucket/my music/a.b/track 1.wav")
    assert str(path) == "gs://bucket/my music/a.b/track 1.wav"
    assert f"{path.parent}" == "gs://bucket/my music/a.b"
    assert (path.name, path.stem, path.suffix) == ("track 1.wav", "track 1", ".wav")
    assert path.parent / "x" == uris.path("gs://bucket/my music/a.b/x")
    assert path.relative_to(uris.path("gs://bucket/my music")).parts == (
        "a.b",
        "track 1.wav",
    )
    assert pickle.loads(pickle.dumps(path)) == path
    assert type(pickle.loads(pickle.dumps(path))) is Uri
    assert config_lib.shown(path) == str(path)
    assert uris.path(path) is path


@pytest.mark.parametrize("text", ["/a/b", "a", "~/a", "file:///a/b", "a:/b", "C://b"])
def test_what_is_no_address_is_a_path_of_this_machine(text):
    assert uris.path(text) == pathlib.Path(text.removeprefix("file://"))
    assert isinstance(uris.path(text), pathlib.Path)


@pytest.mark.parametrize("flag", ["data_dir", "features_dir"])
def test_an_address_that_nothing_knows_is_one_line(flag):
    fsspec.register_implementation(
        "far", "no_such_package.Far", clobber=True, errtxt="Install no_such_package"
    )
    for address, reason in [
        ("no-such://b", "Protocol not known: no-such"),
        ("far://b", "Install no_such_package"),
    ]:
        config = Config(dataset="folder", **{flag: address})
        with pytest.raises(UserError, match=f"--{flag}={address}: cannot.*{reason}"):
            config_lib.complete(config, "track", ["track"])


@pytest.mark.parametrize(
    "module, flags",
    [
        ("main", ["--dataset=synth", "--data_dir=memory://b", "--mode=prepare"]),
        ("main", ["--dataset=synth", "--workdir=memory://b"]),
        ("datasets.download", ["--dataset=fma", "--data_dir=memory://b"]),
        ("datasets.verify", ["--dataset=fma", "--data_dir=memory://b"]),
    ],
)
def test_where_only_a_folder_will_do_an_address_is_one_line(module, flags, tmp_path):
    done = run_module(f"mgr_jax.{module}", *flags, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "_dir=memory://b: must be a path of this machine" in line or (
        "--workdir=memory://b: must be a path of this machine" in line
    )


def test_preparing_there_leaves_the_bytes_of_here(far, local):
    folder = prepare.prepare(far)
    assert str(folder) == f"{far.features_dir}/folder-my_music/chroma"
    assert contents(folder) == local


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam is not installed: pip install -e '.[test,beam]'",
)
def test_preparing_there_on_beam_leaves_the_bytes_of_here(bucket, music_folder, local):
    data = upload(music_folder, bucket / music_folder.name)
    config = config_for(data, bucket / "f", runner="DirectRunner")
    assert contents(prepare.prepare(config)) == local


def test_features_of_data_that_are_here_may_be_there(bucket, music_folder, local):
    assert contents(prepare.prepare(config_for(music_folder, bucket))) == local


def test_features_of_data_that_are_there_may_be_here(far, local, tmp_path):
    config = config_for(far.data_dir, tmp_path / "f")
    assert contents(prepare.prepare(config)) == local


def record_shards(monkeypatch) -> list[int]:
    """The numbers of the shards that are written from here on."""
    written, write = [], shards.write_shard
    monkeypatch.setattr(
        shards,
        "write_shard",
        lambda job, k, **kw: (written.append(k), write(job, k, **kw)),
    )
    return written


def test_what_is_finished_there_is_not_made_again(far, monkeypatch):
    folder = prepare.prepare(far)
    written = record_shards(monkeypatch)
    assert prepare.prepare(far) == folder
    assert written == []


class Killed(BaseException):
    """Stands in for a signal: nothing in the program catches it."""


@pytest.mark.parametrize("kill_at", [4, 13])
def test_killed_and_resumed_there_gives_the_same_bytes(
    far, local, monkeypatch, kill_at
):
    """The kill comes when a file is sent: shards and accounts, then the commit."""
    send, sent = Uri.send, []

    def killed(self, source):
        sent.append(self.name)
        if len(sent) > kill_at:
            raise Killed
        send(self, source)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Uri, "send", killed)
        prepare.prepare(far)
    folder = input_pipeline.prepared_folder(far)
    assert not input_pipeline.is_complete(folder)
    written = record_shards(monkeypatch)
    prepare.prepare(far)
    assert written == ([2, 3, 4, 5] if kill_at == 4 else [])
    assert contents(folder) == local


@pytest.mark.parametrize("lost", ["shard", "half a shard", "account"])
def test_what_was_lost_there_is_made_again_and_nothing_else(
    far, local, monkeypatch, lost
):
    folder = prepare.prepare(far)
    shard = next(path for path, _ in folder.listed() if "d-00003-" in path.name)
    if lost == "half a shard":
        shard.fs.pipe_file(str(shard), shard.read_bytes()[:1_000])
    elif lost == "account":
        (folder / "tracks-00003-of-00006.json").write_text("{")
    else:
        shard.unlink()
    written = record_shards(monkeypatch)
    prepare.prepare(far)
    assert written == [3]
    assert contents(folder) == local


def test_changed_data_there_are_prepared_anew_only_when_told(far):
    folder = prepare.prepare(far)
    before = contents(folder)
    genre = uris.path(far.data_dir) / "a tones"
    (genre / "track 9.wav").fs.copy(
        str(genre / "track 1.wav"), str(genre / "track 9.wav")
    )
    with pytest.raises(UserError, match=r"num_tracks 16 then, 17 now.*--overwrite"):
        prepare.prepare(far)
    assert contents(folder) == before
    prepare.prepare(config_for(far.data_dir, far.features_dir, overwrite=True))
    assert len(input_pipeline.open_prepared(folder).tracks) == 17


def test_a_bad_file_there_is_skipped_with_its_address(bucket, tmp_path):
    music = write_music_folder(tmp_path / "music", tracks_per_genre=5)
    bad = music / "a tones" / "track 1.wav"
    bad.write_text("this is no audio")
    data = upload(music, bucket / "music")
    folder = prepare.prepare(config_for(data, bucket / "f", max_skipped=0.1))
    assert (folder / "skipped.csv").read_text().splitlines()[1:] == [
        f"a tones/track 1.wav,0,{data}/a tones/track 1.wav: cannot be decoded "
        "(Format not recognised)"
    ]


def test_a_file_there_that_has_gone_is_no_audio(bucket):
    with pytest.raises(audio.AudioError, match=r"gone\.wav: cannot be read \(No such"):
        audio.decode(bucket / "gone.wav")


class Unreliable(MemoryFileSystem):
    """A store whose network fails as the packages tell of it: in ways of their own."""

    protocol = "unreliable"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("unreliable://", "memory://"))

    def get_file(self, *args, **settings):
        raise RuntimeError("503, try\nagain")

    def ls(self, path, detail=True, **settings):
        if "closed" in path:
            raise PermissionError("Anonymous caller")
        return super().ls(path, detail, **settings)


@pytest.fixture
def unreliable(bucket):
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    return uris.path(str(bucket).replace("memory", "unreliable"))


def test_a_network_that_fails_leaves_no_track_out(
    bucket, unreliable, music_folder, tmp_path
):
    upload(music_folder, bucket / "music")
    config = config_for(unreliable / "music", tmp_path / "f", max_skipped=1.0)
    with pytest.raises(UserError) as error:
        prepare.prepare(config)
    assert str(error.value) == (
        f"{unreliable}/music/a tones/track 0.wav: cannot be fetched (503, try again); "
        "the same command goes on"
    )
    assert not list(input_pipeline.prepared_folder(config).glob("*.tfrecord-*"))


def test_a_store_that_lets_nobody_in_says_so(unreliable, tmp_path):
    config = config_for(unreliable / "closed", tmp_path / "f")
    with pytest.raises(OSError, match="Anonymous caller") as error:
        prepare.prepare(config)
    assert error.value.filename == str(unreliable / "closed")


def test_nothing_there_is_told_as_of_a_folder(bucket):
    with pytest.raises(
        UserError, match=f"no audio in --data_dir={bucket}/no .there is"
    ):
        load_tracks(Config(dataset="folder", data_dir=f"{bucket}/no"))


def test_what_is_not_there_is_fetched_to_here_first(bucket):
    with pytest.raises(UserError) as error:
        load_tracks(Config(dataset="fma", data_dir=f"{bucket}/it's no"))
    assert (
        "fetch it with python -m mgr_jax.datasets.download --dataset=fma "
        "--data_dir=DIR to this machine and copying it there, or try"
    ) in str(error.value)


def test_gtzan_is_found_there(bucket, tmp_path):
    for genre in ("blues", "rock"):
        path = tmp_path / "genres" / genre / f"{genre}.00007.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, tone(440, 6), 22_050)
        path.with_name(f"._{path.name}").write_text("no audio")
    data = upload(tmp_path / "genres", bucket / "gtzan" / "genres")
    tracks = load_tracks(Config(dataset="gtzan", data_dir=str(bucket / "gtzan")))
    assert [track.id for track in tracks] == ["blues.00007", "rock.00007"]
    assert tracks[1].path == data / "rock" / "rock.00007.wav"
    samples = audio.decode(tracks[1].path)
    assert len(samples) == 6 * 22_050


def test_fma_there_lists_the_tracks_of_here(bucket, tmp_path):
    data = SHARED / "fma_like"
    if not data.is_dir():
        pytest.skip(f"needs {data}")
    part = tmp_path / "fma"
    (part / "fma_small").mkdir(parents=True)
    (part / "fma_small" / "000").symlink_to(data / "fma_small" / "000")
    (part / "fma_metadata").symlink_to(data / "fma_metadata")
    here = Config(dataset="fma", data_dir=str(part))
    for path in (*part.glob("fma_small/000/*"), *part.glob("fma_metadata/*")):
        (bucket / path.relative_to(part)).send(path)
    there = Config(dataset="fma", data_dir=str(bucket))
    ours, theirs = DATASETS["fma"].load(here), DATASETS["fma"].load(there)
    assert [track.id for track in ours] == [track.id for track in theirs]
    found = next(track for track in theirs if track.path.exists())
    expected = next(track for track in ours if track.id == found.id)
    assert (audio.decode(found.path) == audio.decode(expected.path)).all()


def test_a_copy_is_fetched_once_and_again_where_it_changed(far, local, capsys):
    folder = prepare.prepare(far)
    first = input_pipeline.open_prepared(folder)
    lists = {name for name in local if not name.startswith("tracks-")}
    assert contents(first.folder) == {name: local[name] for name in lists}
    assert f"fetching {len(lists)} files of {folder}" in capsys.readouterr().out
    assert input_pipeline.open_prepared(folder) == first
    assert capsys.readouterr().out == ""
    next(first.folder.glob("*.tfrecord-00002-*")).write_bytes(b"cut off")
    (first.folder / "tracks.csv").write_text("x" * len(local["tracks.csv"]))
    assert input_pipeline.open_prepared(folder) == first
    assert "fetching 2 files" in capsys.readouterr().out
    assert contents(first.folder) == {name: local[name] for name in lists}


def test_a_copy_that_was_interrupted_is_gone_on_with(far, local, monkeypatch):
    folder = prepare.prepare(far)
    fetch, fetched = Uri.fetch, []

    def killed(self, target):
        fetched.append(self.name)
        if len(fetched) == 5:
            raise Killed
        fetch(self, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Uri, "fetch", killed)
        input_pipeline.open_prepared(folder)
    found = input_pipeline.open_prepared(folder)
    assert contents(found.folder).items() <= local.items()
    assert len(found.segment_counts) == 16


def test_a_copy_of_what_was_made_of_other_data_is_not_used(far):
    folder = prepare.prepare(far)
    before = input_pipeline.open_prepared(folder)
    (uris.path(far.data_dir) / "a tones" / "track 1.wav").unlink()
    prepare.prepare(config_for(far.data_dir, far.features_dir, overwrite=True))
    after = input_pipeline.open_prepared(folder)
    assert (len(before.tracks), len(after.tracks)) == (16, 15)
    assert len(list(after.folder.glob("*.tfrecord-*"))) == 5


def test_a_run_on_features_there_gives_the_results_of_here(
    bucket, music_folder, tmp_path
):
    data = upload(music_folder, bucket / music_folder.name)
    settings = {"num_epochs": 2, "widths": (2, 2, 2), "hidden_units": 4}
    predictions = []
    for name, data_dir, features in [
        ("here", music_folder, tmp_path / "f"),
        ("there", data, bucket / "f"),
    ]:
        run = tmp_path / name
        main.run(config_for(data_dir, features, workdir=str(run), **settings))
        predictions.append((run / "predictions.csv").read_bytes())
    assert predictions[0] == predictions[1]
    assert predictions[0].count(b"\n") > 1
