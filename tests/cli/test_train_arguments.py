"""Flags win over the file, and the file over the defaults; every mistake is one line that names the flag."""

import ast
import inspect
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import unit.config
from unit.cli.train_arguments import FIRST_KEYS, TrainArguments, parse_train_arguments
from unit.config import Config, LossConfig
from unit.config_file import read_config
from unit.errors import ConfigError
from unit.training.preset_choice import Choice

DEFAULTS = Config().to_flat_dict()
OTHER: dict[str, Any] = {"data.a": "x", "data.b": "y", "data.root": "r", "data.test_a": "t", "data.test_b": "u"}
OTHER |= {"data.name_a": "sun", "data.name_b": "rain", "data.workers": 2, "data.crop_size": 128, "data.load_size": 512}
OTHER |= {"model.upsampling": "nearest", "data.on_bad_image": "skip"}
OTHER |= {"data.licence": "CC-BY-4.0", "data.people": "none"}
OTHER |= {"train.init_from": "runs/x", "loss.memory": 1.0}
OTHER |= {"train.keep_every": 10_000, "train.on_nonfinite": "rollback"}
OTHER |= {"model.normalization": "group", "model.initialization": "kaiming", "model.discriminator_channels": 8}
OTHER |= {"loss.adversarial": "least_squares", "optimizer.schedule": "linear", "optimizer.decay_end": 9}
OTHER |= {"train.max_minutes": 1.5, "train.device": "cuda:1", "train.precision": "bf16", "train.deterministic": False}
OTHER |= {"model.downsampling": "blurred", "loss.augmentation": "color,cutout", "train.compile": "off"}
NEEDS = {
    "data.a": ["data.b"],
    "data.b": ["data.a"],
    "data.paired_test": ["data.root"],
    "optimizer.schedule": ["optimizer.decay_end"],
}
NEEDS |= {"loss.memory": ["train.init_from"]}
NEEDS |= {"data.test_a": ["data.test_b", "data.root"], "data.test_b": ["data.test_a", "data.root"]}


def parse(*argv: str, preset: Path | None = None) -> TrainArguments:
    def choose(*_: object) -> Choice:
        assert preset is not None, "no preset is chosen when there is --config"
        return Choice(preset, "a reason")

    return parse_train_arguments(argv, choose)


def refusal(*argv: str, preset: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(*argv, preset=preset)
    message = str(refused.value)
    assert message.isprintable(), "one line"
    return message


def other_value(key: str) -> Any:
    """A value that is not the default's."""
    default = DEFAULTS[key]
    if key in OTHER:
        return OTHER[key]
    if isinstance(default, bool):
        return not default
    return default * 2 if isinstance(default, int) and default else default + 1 if default == 0 else default / 2


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def with_needs(key: str) -> list[str]:
    return [key, *NEEDS.get(key, [])]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.yaml"
    path.touch()
    return path


# Precedence


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("equals", [False, True])
def test_flags_win_over_the_file_in_any_order(tmp_path: Path, order: tuple[int, ...], equals: bool) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {steps: 7, seed: 8, batch_size: 9}\nmodel: {channels: 16}\n")
    pairs = [("--config", str(path)), ("--train.steps", "1"), ("--model.channels", "32")]
    words = [f"{flag}={value}" if equals else [flag, value] for flag, value in (pairs[i] for i in order)]
    config = parse(*itertools.chain.from_iterable([w] if isinstance(w, str) else w for w in words)).config
    assert (config.train.steps, config.model.channels) == (1, 32), "the flags'"
    assert (config.train.seed, config.train.batch_size) == (8, 9), "the file's"
    assert config.loss == LossConfig(), "the defaults'"


def test_flags_win_over_the_preset_and_the_preset_over_the_defaults(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("train: {steps: 7, seed: 8}\n")
    config = parse("--train.steps", "1", preset=preset).config
    assert (config.train.steps, config.train.seed, config.train.batch_size) == (1, 8, 1)


def test_the_preset_depends_on_the_flags_for_folders_and_device(empty: Path) -> None:
    seen: list[Config] = []

    def choose(config: Config, flags: Mapping[str, Any]) -> Choice:
        seen.append(config)
        assert len(flags) in (0, 3)
        return Choice(empty, "a reason")

    parse_train_arguments([], choose)
    parse_train_arguments(["--data.a", "x", "--train.device=cpu", "--data.b=y"], choose)
    assert [config.data.synthetic for config in seen] == [True, False]
    assert [config.train.device for config in seen] == ["auto", "cpu"]


def test_a_flag_may_be_valid_only_with_the_preset(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("data: {load_size: 1024}\n")
    assert parse("--data.crop_size=512", preset=preset).config.data.crop_size == 512


def test_the_last_of_repeated_flags_counts(empty: Path) -> None:
    assert parse("--train.steps=1", "--train.steps", "2", preset=empty).config.train.steps == 2


def test_out_and_the_switches(empty: Path) -> None:
    bare = parse(preset=empty)
    assert (bare.config, bare.out, bare.dry_run, bare.print_config) == (Config(), None, False, False)
    full = parse("--dry_run", "--out", "runs/x", "--print_config", "--config", str(empty))
    assert (full.out, full.dry_run, full.print_config) == (Path("runs/x"), True, True)


# Keys and values


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_key_is_accepted_as_a_flag_and_in_a_file(tmp_path: Path, empty: Path, key: str) -> None:
    wanted = {name: other_value(name) for name in with_needs(key)}
    assert wanted[key] != DEFAULTS[key]
    flags = [word for name, value in wanted.items() for word in (f"--{name}", as_text(value))]
    sections: dict[str, list[str]] = {}
    for dotted, value in wanted.items():
        section, name = dotted.split(".")
        sections.setdefault(section, []).append(f"{name}: {as_text(value)}")
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{section}:\n  " + "\n  ".join(lines) + "\n" for section, lines in sections.items()))
    for config in (parse(*flags, preset=empty).config, read_config(path)):
        value = config.to_flat_dict()[key]
        assert value == wanted[key]
        assert type(value) is type(wanted[key])


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *[("data.flip", text, False) for text in ("false", "False", "no", "NO", "off", "Off")],
        *[("train.deterministic", text, True) for text in ("true", "TRUE", "yes", "Yes", "on", "ON")],
        *[("train.deterministic", text, None) for text in ("null", "Null", "~")],
        *[("train.steps", text, 100_000) for text in ("100000", "100_000", "1e5", "100000.0", "0100000")],
        *[("optimizer.weight_decay", text, 1e-4) for text in ("1e-4", "0.0001", "1E-4", ".0001")],
        *[("data.name_a", text, text) for text in ("2020", "true", "1e5", "-x", "a=b", "007", "None")],
        ("train.max_minutes", "3", 3.0),
        ("data.workers", "null", None),
    ],
)
def test_a_value_is_read_as_the_type_of_its_key(tmp_path: Path, empty: Path, key: str, text: str, value: Any) -> None:
    section, name = key.split(".")
    path = tmp_path / "mine.yaml"
    path.write_text(f"{section}:\n  {name}: {text}\n")
    for config in (parse(f"--{key}={text}", preset=empty).config, read_config(path)):
        assert config.to_flat_dict()[key] == value
        assert type(config.to_flat_dict()[key]) is type(value)


def test_values_that_begin_with_a_dash(empty: Path) -> None:
    data = parse("--data.a=--x", "--data.b=-y", preset=empty).config.data
    assert (data.a, data.b) == ("--x", "-y")


# Errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mien.yaml", "mien.yaml: no such file; did you mean DIR/mine.yaml?"),
        ("mine.yml", "mine.yml: no such file; did you mean DIR/mine.yaml?"),
        ("nowhere/mine.yaml", "nowhere/mine.yaml: no such file; check the path"),
        ("line\nbreak", "line\\nbreak: no such file"),
        ("folder", "folder: "),
        ("mine.yaml/x", "mine.yaml/x: can't be read"),
        ("x" * 300, "x" * 300 + ": can't be read"),
    ],
)
def test_a_missing_or_unreadable_file(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "folder").mkdir()
    said = refusal("--config", str(tmp_path / name))
    assert said.replace(str(tmp_path), "DIR").startswith(f"DIR/{message}")
    assert refusal(preset=tmp_path / name) == said


def test_a_contradiction_names_the_file_only_if_the_file_alone_has_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {residual_blocks: 2, shared_blocks: 3}\n")
    assert refusal("--config", str(path), "--train.seed=1").startswith(f"{path}: model.shared_blocks: ")
    assert refusal("--config", str(path), "--model.shared_blocks=4").startswith("model.shared_blocks: is 4")
    assert parse("--config", str(path), "--model.shared_blocks=1").config.model.shared_blocks == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--train.step 1", "--train.step: no such flag; did you mean --train.steps?"),
        ("--train.batch 1", "--train.batch: no such flag; did you mean --train.batch_size?"),
        ("--steps 1", "--steps: no such flag; did you mean --train.steps?"),
        ("--train.batch-size=1", "--train.batch-size: no such flag; did you mean --train.batch_size?"),
        ("--dry-run", "--dry-run: no such flag; did you mean --dry_run?"),
        ("--conf x", "--conf: no such flag; did you mean --config?"),
        ("--zzz", "--zzz: no such flag; --help"),
        ("-c x", "-c: no such flag"),
        ("--", "--: no such flag"),
        ("--train.steps", "argument --train.steps: expected one argument"),
        ("--train.steps --dry_run", "argument --train.steps: expected one argument"),
        ("--data.a= --data.b=x", "--data.a: must be a folder's name, not empty"),
        ("--train.max_minutes=", "--train.max_minutes: must be a valid number, is ''"),
        ("--config", "argument --config: expected one argument"),
        *[
            (f"--minutes={text}", "argument --minutes: must be a number above 0, is")
            for text in ("0", "-1", "nan", "inf")
        ],
        *[(f"--minutes={text}", "argument --minutes: must be a number above 0, is") for text in ("", "ten", "-inf")],
        ("--minutes", "argument --minutes: expected one argument"),
        ("--minute 3", "--minute: no such flag; did you mean --minutes?"),
        ("--out=", "argument --out: is empty; give a name"),
        ("--config x --config x", "--config: given twice"),
        ("--dry_run=yes", "argument --dry_run: ignored explicit argument 'yes'"),
        ("photos", "photos: unexpected argument"),
        ("--train.steps 1 2", "2: unexpected argument"),
        ("--train.batch_size four", "--train.batch_size: must be a valid integer, is 'four'"),
        ("--data.flip maybe", "--data.flip: must be a valid boolean, is 'maybe'"),
        ("--model.normalization=batch", "--model.normalization: must be 'instance' or 'group', is 'batch'"),
        ("--train.steps null", "--train.steps: must be a valid integer, is 'null'"),
        ("--train.batch_size 0", "--train.batch_size: must be greater than or equal to 1, is '0'"),
        ("--data.a x", "data.b: give both folders"),
        # nested files, classes and appended values, which other argument parsers take
        *[(f"--{section} FILE", f"--{section}: no such flag") for section in ("data", "model", "train")],
        ("--data=FILE", "--data: no such flag"),
        ("--data.help", "--data.help: no such flag"),
        ("--data.help unit.config.DataConfig", "--data.help: no such flag"),
        ("--train.steps+=1", "--train.steps+: no such flag"),
        ("--train.init_args.steps=1", "--train.init_args.steps: no such flag"),
        ("--train.class_path=os.system", "--train.class_path: no such flag"),
    ],
)
def test_an_error_in_a_flag_is_one_line_that_names_it(empty: Path, line: str, message: str) -> None:
    assert refusal(*line.split(), preset=empty).startswith(message)


def test_environment_variables_are_ignored(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAIN__STEPS", "TRAIN_TRAIN__STEPS", "TRAIN_CONFIG", "STEPS"):
        monkeypatch.setenv(name, "3")
    assert parse(preset=empty).config == Config()


# Help


def printed_help(capsys: pytest.CaptureFixture[str], *argv: str, preset: Path | None = None) -> str:
    with pytest.raises(SystemExit) as done:
        parse(*argv, preset=preset)
    printed = capsys.readouterr()
    assert (done.value.code, printed.err) == (0, "")
    return printed.out


def test_help_all_shows_every_key_with_docstring_type_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = printed_help(capsys, "--train.stepz", "--help", "all", preset=empty)
    squeezed = "".join(out.split())
    for section in ast.parse(inspect.getsource(unit.config)).body:
        if isinstance(section, ast.ClassDef) and re.fullmatch("(?!Run)[A-Z][a-z]+Config", section.name):
            assert "".join((ast.get_docstring(section) or "").split()) in squeezed
            for key, doc in itertools.pairwise(section.body):
                if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name):
                    assert isinstance(doc, ast.Expr), f"{key.target.id} has no docstring"
                    assert isinstance(doc.value, ast.Constant)
                    flag = f"--{section.name.removesuffix('Config').lower()}.{key.target.id}"
                    assert f"\n  {flag} " in out, flag
                    assert "".join(str(doc.value.value).split()) + "(value:" in squeezed, flag
    assert set(re.findall(r"\n  --(\w+\.\w+) ", out)) == set(DEFAULTS)
    assert "\n  --model.channels INT " in out
    assert "\n  --model.normalization instance|group\n" in out
    assert "(value:64,e.g.--model.channels32)" in squeezed
    assert all(f"\n  --{name}" in out for name in ("config", "out", "minutes", "dry_run", "print_config", "restart"))
    assert "--data CONFIG" not in out, "sections can't be read from files of their own"
    assert not [key for key in unit.config.OLD_KEYS if f"--{key}" in out]
    assert "examples:" in out


def test_help_shows_the_keys_to_set_first_with_the_values_that_hold(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("model: {channels: 16}\n")
    out = printed_help(capsys, "--help", "--train.steps=7", preset=preset)
    assert len(FIRST_KEYS) == 12
    assert re.findall(r"\n  --(\w+\.\w+) ", out) == [*FIRST_KEYS]
    squeezed = " ".join(out.split())
    assert f"will hold, by {preset} and the flags given" in squeezed
    assert "(value: 16, e.g. --model.channels 32)" in squeezed
    assert "(value: 7, e.g. --train.steps 20000)" in squeezed
    assert "500000" not in squeezed, "the class's default"
    assert "optimizer:" not in out


@pytest.mark.parametrize("key", FIRST_KEYS)
def test_the_examples_in_the_help_are_accepted(empty: Path, key: str) -> None:
    flags = [f"--{name}={FIRST_KEYS.get(name, 'x')}" for name in with_needs(key)]
    config = parse(*(["--data.load_size=286"] if key == "data.crop_size" else []), *flags, preset=empty).config
    assert as_text(config.to_flat_dict()[key]) in (FIRST_KEYS[key], f"{FIRST_KEYS[key]}.0")


# Old names


def test_old_flags_are_taken_with_a_notice(empty: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["--model.halvings", "1", "--model.average_decay=0.5", "--model.equal_start=yes", "--train.accumulation=4"]
    arguments = parse(*words, "--start_anew", "--model.dropout=0", "--config", str(empty))
    model, train = arguments.config.model, arguments.config.train
    assert (model.downsamples, model.ema_decay, model.same_init, train.grad_accum_steps) == (1, 0.5, True, 4)
    assert arguments.restart
    (record,) = caplog.records
    assert record.getMessage().startswith("command line: ")
    assert "start_anew is now restart" in record.getMessage()


def test_restarting_is_no_question_of_a_value(empty: Path) -> None:
    for word in ("--start_anew=false", "--restart=false"):
        with pytest.raises(ConfigError, match="restart"):
            parse(word, "--config", str(empty))
