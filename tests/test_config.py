import dataclasses

import pytest
from absl import flags
from conftest import run_module

from mgr_jax import config as config_lib
from mgr_jax.config import Config, UserError
from mgr_jax.features import FEATURES
from mgr_jax.models import MODELS


def parse(*words: str, base: Config | None = None) -> Config:
    values = flags.FlagValues()
    config_lib.define_flags({}, values)
    values(["program", *words])
    return config_lib.from_flags(values, base=base)


def test_every_field_is_a_flag_of_its_type():
    config = parse(
        "--seed=3",
        "--learning_rate=0.5",
        "--widths=1,2,3",
        "--split_ratios=0.5,0.25,0.25",
        "--overwrite",
        "--dataset=gtzan",
    )
    assert config == Config(
        seed=3,
        learning_rate=0.5,
        widths=(1, 2, 3),
        split_ratios=(0.5, 0.25, 0.25),
        overwrite=True,
        dataset="gtzan",
    )


def test_without_flags_the_defaults_stand():
    assert parse() == Config()


def test_only_flags_on_the_command_line_replace_a_saved_config():
    saved = Config(feature="chroma", seed=7)
    assert parse("--seed=8", base=saved) == Config(feature="chroma", seed=8)


@pytest.mark.parametrize(
    "field, value",
    [
        ("batch_size", 0),
        ("split_ratios", (1.5, -0.5, 0.0)),
        ("dropout", 1.0),
        ("widths", (16, 32)),
        ("split_ratios", (0.5, 0.2, 0.2)),
        ("split_ratios", (0.8, 0.0, 0.2)),
        ("seed", 2**32),
    ],
)
def test_a_number_out_of_range_names_its_flag(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        Config(**{field: value})


def test_a_list_that_is_no_list_of_numbers_names_its_flag():
    with pytest.raises(UserError, match="--widths=a,b,c: give int numbers"):
        parse("--widths=a,b,c")


def test_a_wrong_choice_lists_the_right_ones_and_the_nearest():
    choices = {"feature": ("chroma", "spectrogram")}
    with pytest.raises(UserError) as error:
        config_lib.check_choices(Config(feature="spectogram"), choices)
    assert "choose one of chroma, spectrogram (did you mean spectrogram?)" in str(
        error.value
    )


def test_the_names_that_help_tells_are_those_of_the_registries():
    assert tuple(FEATURES) == config_lib.FEATURE_NAMES
    assert tuple(MODELS) == config_lib.MODEL_NAMES


def test_json_brings_every_field_back():
    config = Config(widths=(1, 2, 3), data_dir="/a b", overwrite=True)
    assert config_lib.from_json(config_lib.to_json(config)) == config


@pytest.mark.parametrize("text", ["", "[]", "{", '{"no_such_field": 1}', "null"])
def test_json_that_is_no_config_is_a_user_error(text):
    with pytest.raises(UserError, match=r"not a config\.json"):
        config_lib.from_json(text)


def test_complete_fills_in_the_data_sets_protocol_and_the_folders(monkeypatch):
    monkeypatch.setenv("MGR_DATA_DIR", "/music")
    config = config_lib.complete(Config(dataset="gtzan"), "filtered", ["filtered"])
    assert config.split == "filtered"
    assert config.data_dir == "/music"
    assert config.features_dir == "/music/features"
    assert config.workdir.endswith("runs/gtzan-spectrogram-cnn-filtered-seed0")


def test_complete_refuses_a_protocol_that_the_data_set_has_not():
    with pytest.raises(UserError, match=r"--split=official.*choose one of track"):
        config_lib.complete(Config(split="official"), "track", ["track"])


def test_a_run_cannot_be_gone_on_with_under_other_settings():
    saved = Config(seed=1)
    with pytest.raises(UserError, match="--seed was 1, is 2"):
        config_lib.check_same_run(saved, dataclasses.replace(saved, seed=2), ("mode",))
    config_lib.check_same_run(
        saved, dataclasses.replace(saved, mode="evaluate"), ("mode",)
    )


def test_the_command_gives_the_config_back():
    config = Config(feature="chroma", widths=(1, 2, 3), data_dir="/a b")
    assert config_lib.command(config) == (
        "python -m mgr_jax.main --feature=chroma '--data_dir=/a b' --widths=1,2,3"
    )


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://b", "hf://x"])
def test_an_address_is_no_folder_called_so(address):
    with pytest.raises(UserError) as error:
        config_lib.complete(Config(workdir=address), "track", ["track"])
    assert str(error.value).startswith(f"--workdir={address}: must be a path of this")


@pytest.mark.parametrize("path", ["gs:/x", "a/b://c", "C://music", "x:y", "://x"])
def test_what_is_no_address_stays_a_path(path):
    assert config_lib.complete(
        Config(features_dir=path), "track", ["track"]
    ).features_dir.startswith("/")


@pytest.mark.parametrize("flag", ["data_dir", "features_dir", "workdir"])
def test_the_program_says_so_and_makes_nothing(flag, tmp_path):
    words = ("--dataset=synth", f"--{flag}=nowhere://bucket/x", "--synth_clips=8")
    place = {"MGR_DATA_DIR": str(tmp_path / "data")}
    done = run_module("mgr_jax.main", *words, cwd=tmp_path, **place)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --{flag}=nowhere://bucket/x: ")
    assert not list(tmp_path.iterdir())
