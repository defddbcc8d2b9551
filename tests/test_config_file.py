"""Flags win over the file and the file over the defaults; every mistake is one line that says where it is."""

import ast
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import unit.config
import unit.config_file
from unit.cli.train_arguments import FIRST_KEYS, TrainArguments, parse_train_arguments
from unit.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig
from unit.config_file import read_config, to_yaml, write_config
from unit.errors import ConfigError

DEFAULTS = Config().to_flat_dict()
OTHER: dict[str, Any] = {"data.a": "x", "data.b": "y", "data.root": "r", "data.test_a": "t", "data.test_b": "u"}
OTHER |= {"data.name_a": "sun", "data.name_b": "rain", "data.workers": 2, "data.crop_size": 128, "data.load_size": 512}
OTHER |= {"model.upsampling": "nearest", "data.on_bad_image": "skip"}
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
NEEDS |= {"data.test_a": ["data.test_b", "data.root"], "data.test_b": ["data.test_a", "data.root"]}
ODD = [*"~[]{}&*!|>%@`'\"#=-?:,", "null", "true", "No", "2020", "1e5", "", " leading", "trailing ", "-x", "--out", "<<"]
ODD += ["a: b", "a #b", "- d", "{e}", "[f", "&g", "C:\\new", "é漢😀", "\x85", "\u2028", "\ufeff", "...", "---"]
odd_texts = st.sampled_from(ODD) | st.text(max_size=20)
folders = odd_texts.filter(lambda folder: bool(folder) and "\0" not in folder)
names = odd_texts.filter(lambda name: bool(name.strip()) and name.isprintable() and not set(name) & set("/\\"))
sizes = st.floats(0, 1e9, allow_subnormal=False) | st.integers(0, 10**9)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    a = draw(st.tuples(folders, folders) | st.none())
    name_a, name_b = draw(st.lists(st.none() | names, min_size=2, max_size=2, unique=True))
    return Config(
        data=DataConfig(
            **({"a": a[0], "b": a[1]} if a else {"root": draw(folders)}),
            name_a=name_a,
            name_b=name_b,
            flip=draw(st.booleans()),
            workers=draw(st.none() | st.integers(0, 99)),
        ),
        model=ModelConfig(
            ema_decay=draw(st.floats(0, 0.99, allow_subnormal=False)), normalization=draw(group_or_instance)
        ),
        loss=LossConfig(lambda0=draw(sizes), lambda1=draw(sizes)),
        optimizer=OptimizerConfig(learning_rate_generator=draw(sizes), weight_decay=draw(sizes)),
        train=TrainConfig(max_minutes=draw(st.none() | sizes), deterministic=draw(st.none() | st.booleans())),
    )


group_or_instance = st.sampled_from(["instance", "group"])


def parse(*argv: str, preset: Path | None = None) -> TrainArguments:
    def choose(_: Config) -> Path:
        assert preset is not None, "no preset is chosen when there is --config"
        return preset

    return parse_train_arguments(argv, choose)


def refusal(*argv: str, preset: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(*argv, preset=preset)
    message = str(refused.value)
    assert message.isprintable(), "one line"
    return message


def refusal_of_file(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert str(refused.value).isprintable(), "one line"
    return str(refused.value).replace(str(path), "FILE")


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

    def choose(config: Config) -> Path:
        seen.append(config)
        return empty

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


def test_an_empty_value_in_a_file_is_null_and_a_quoted_one_is_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  workers:\n  name_a: 'null'\n  name_b: \"~\"\n")
    data = read_config(path).data
    assert (data.workers, data.name_a, data.name_b) == (None, "null", "~")


def test_values_that_begin_with_a_dash(empty: Path) -> None:
    data = parse("--data.a=--x", "--data.b=-y", preset=empty).config.data
    assert (data.a, data.b) == ("--x", "-y")


# Writing


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs())
@example(config=Config(data=DataConfig(a="undecodable \udcff", b="line\nbreak\r\ttab \x01")))
@example(config=Config(data=DataConfig(a="\x85", b="x\x85y")))
@example(config=Config(data=DataConfig(a="x " * 300, b="y" * 300)))
def test_a_written_config_reads_back_equal(tmp_path: Path, config: Config) -> None:
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_the_yaml_holds_every_key_in_order() -> None:
    written = to_yaml(Config())
    places = [written.index(f"\n  {key.split('.')[1]}: ") for key in DEFAULTS]
    assert places == sorted(places)
    assert "a: 写真\n" in to_yaml(Config(data=DataConfig(a="写真", b="été")))
    assert written.startswith("data:\n  a: null\n")
    assert "\n\nmodel:\n  channels: 64\n" in written


# Errors in files

BILLION = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train:\n  stepz: 1", "FILE, line 2: train.stepz: no such key; did you mean train.steps?"),
        ("model:\n  steps: 1", "FILE, line 2: model.steps: no such key; did you mean train.steps?"),
        ("train:\n  zzz: 1", "FILE, line 2: train.zzz: no such key; --help"),
        ("steps: 1", "FILE, line 1: steps: no such section; did you mean train.steps (steps: under train:)?"),
        ("train.steps: 1", "FILE, line 1: train.steps: no such section; did you mean train.steps (steps: under"),
        ("\ntrian: {}", "FILE, line 2: trian: no such section; did you mean train?"),
        ("zzz: {}", "FILE, line 1: zzz: no such section; there are data, model, loss, optimizer, train"),
        ("train:\n  batch_size: four", "FILE, line 2: train.batch_size: must be a valid integer, is 'four'"),
        ("train: {steps: 0.5}", "FILE, line 1: train.steps: must be a valid integer, is '0.5'"),
        ("train: {steps: inf}", "FILE, line 1: train.steps: must be a valid integer, is 'inf'"),
        ("train: {steps: }", "FILE, line 1: train.steps: must be a valid integer, is ''"),
        ("train: {max_minutes: x}", "FILE, line 1: train.max_minutes: must be a valid number, is 'x'"),
        ("data: {flip: 2}", "FILE, line 1: data.flip: must be a valid boolean, is '2'"),
        ("data: {workers: 'null'}", "FILE, line 1: data.workers: must be a valid integer, is 'null'"),
        (
            "model: {normalization: batch}",
            "FILE, line 1: model.normalization: must be 'instance' or 'group', is 'batch'",
        ),
        ("train: {steps: [1, 2]}", "FILE, line 1: train.steps: must be one value, is a list or mapping"),
        ("train: {steps: {a: 2}}", "FILE, line 1: train.steps: must be one value, is a list or mapping"),
        ("train: {seed: 1, steps: 1,\n seed: 1}", "FILE, line 2: train.seed: given twice, first on line 1"),
        ("train: {}\nloss: {}\ntrain: {}", "FILE, line 3: train: given twice, first on line 1"),
        ("train: 5", "FILE, line 1: train: must hold keys"),
        ("train: [steps]", "FILE, line 1: train: must hold keys"),
        ("- train", "FILE, line 1: must hold sections"),
        ("hello", "FILE, line 1: must hold sections"),
        ("train:\n  ? [a]\n  : 1", "FILE, line 2: a key must be a name"),
        ('train:\n  "a\\nb": 1', "FILE, line 2: train.a\\nb: no such key"),
        ("train:\n  steps: !!int 4", "FILE, line 2: holds a YAML tag"),
        ("train:\n  !!int 4: 4", "FILE, line 2: holds a YAML tag"),
        ("data:\n  a: !!python/object/apply:os.system [x]", "FILE, line 2: holds a YAML tag"),
        ("!!python/object:os.system {}", "FILE, line 1: holds a YAML tag"),
        ("data:\n  a: 'x", "FILE, line 2: not valid YAML"),
        ("data:\n\ta: x", "FILE, line 2: not valid YAML"),
        ("data: *x", "FILE, line 1: not valid YAML: found undefined alias"),
        ("--- {}\n--- {}", "FILE, line 2: not valid YAML"),
        ("train: {}\x00", "FILE: not valid YAML"),
        (b"train:\n  steps: 1 # \xff", "FILE, line 2: not UTF-8"),
        ("train: {}".encode("utf-16"), "FILE, line 1: not UTF-8"),
        ("model: {shared_blocks: 5}", "FILE: model.shared_blocks: is 5, but"),
        ("train: {batch_size: 0}", "FILE, line 1: train.batch_size: must be greater than or equal to 1, is '0'"),
        ("train: {max_minutes: nan}", "FILE, line 1: train.max_minutes: must be a finite number"),
        ("train: &t {seed: 1}\nmodel: *t", "FILE, line 1: model.seed: no such key"),
        ("train: {<<: {seed: 1}}", "FILE, line 1: train.<<: no such key"),
        ("[" * 5_000, "FILE: nested too deep"),
        ("- " * 5_000, "FILE: nested too deep"),
        (BILLION, "FILE, line 1: a: no such section"),
        (BILLION.replace("a: &a", "data: {a: &a").replace("\n", ",") + "}", "FILE, line 1: data.a: must be one value"),
        ("data: &d {a: *d}", "FILE, line 1: data.a: must be one value"),
        ("#" * 200_000, "FILE: too large"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_an_error_in_a_file_is_one_line_with_file_line_and_key(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    assert refusal_of_file(tmp_path / "mine.yaml", content).startswith(message)


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "null", "~", "---\n", "{}", "train:\n", "train: null", "\ufeff"]
)
def test_an_empty_file_means_the_defaults(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    assert read_config(path) == Config()


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


# Errors in flags


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
        ("--out=", "argument --out: is empty; give a name"),
        ("--config x --config x", "--config: given twice"),
        ("--dry_run=yes", "argument --dry_run: ignored explicit argument 'yes'"),
        ("photos", "photos: no flag stands before it"),
        ("--train.steps 1 2", "2: no flag stands before it"),
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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet="train: steps{}[]&*!|>'\"\n-?#,1", max_size=60))
def test_any_content_of_a_file_raises_config_errors_only(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = str(path)
    try:
        read_config(path)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()
    assert message.startswith(str(path))


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
        if isinstance(section, ast.ClassDef) and re.fullmatch("[A-Z][a-z]+Config", section.name):
            assert "".join((ast.get_docstring(section) or "").split()) in squeezed
            for key, doc in itertools.pairwise(section.body):
                if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name):
                    assert isinstance(doc, ast.Expr), f"{key.target.id} has no docstring"
                    assert isinstance(doc.value, ast.Constant)
                    flag = f"--{section.name.removesuffix('Config').lower()}.{key.target.id}"
                    assert f"\n  {flag} " in out, flag
                    assert "".join(str(doc.value.value).split()) + "(default:" in squeezed, flag
    assert set(re.findall(r"\n  --(\w+\.\w+) ", out)) == set(DEFAULTS)
    assert "\n  --model.channels INT " in out
    assert "\n  --model.normalization instance|group\n" in out
    assert "(default:64,e.g.--model.channels32)" in squeezed
    assert all(f"\n  --{name}" in out for name in ("config", "out", "dry_run", "print_config", "restart"))
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
    assert f"those of {preset}" in squeezed
    assert "(default: 64, here: 16, e.g. --model.channels 32)" in squeezed
    assert "(default: 500000, here: 7, e.g. --train.steps 20000)" in squeezed
    assert "optimizer:" not in out


@pytest.mark.parametrize("key", FIRST_KEYS)
def test_the_examples_in_the_help_are_accepted(empty: Path, key: str) -> None:
    flags = [f"--{name}={FIRST_KEYS.get(name, 'x')}" for name in with_needs(key)]
    config = parse(*(["--data.load_size=286"] if key == "data.crop_size" else []), *flags, preset=empty).config
    assert as_text(config.to_flat_dict()[key]) in (FIRST_KEYS[key], f"{FIRST_KEYS[key]}.0")


# Presets that build on others


def test_a_file_overrides_its_base_and_the_base_its_own(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "root.yaml").write_text("train: {steps: 1, seed: 1, batch_size: 1}\n")
    (tmp_path / "presets" / "base.yaml").write_text("base: ../root.yaml\ntrain: {seed: 2, batch_size: 2}\n")
    (tmp_path / "mine.yaml").write_text("train: {batch_size: 3}\nbase: presets/base.yaml\n")
    train = read_config(tmp_path / "mine.yaml").train
    assert (train.steps, train.seed, train.batch_size) == (1, 2, 3)
    assert parse("--config", str(tmp_path / "mine.yaml"), "--train.seed=4").config.train.seed == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: mine.yaml", "FILE, line 1: base: FILE is based on this file; break the circle"),
        ("\nbase: other.yaml", "FILE, line 2: base: DIR/other.yaml, line 1: base: FILE is based on this file"),
        ("base: basis.yaml", "FILE, line 1: base: DIR/basis.yaml: no such file"),
        ("base: bad.yaml", "FILE, line 1: base: DIR/bad.yaml, line 1: train.stepz: no such key"),
        ("base: [other.yaml]", "FILE, line 1: base: must be one value"),
        ("base:", "FILE, line 1: base: must be a file, is ''"),
        ('base: "x\\0y"', "FILE, line 1: base: must be"),
        ("base: loop.yaml", "FILE, line 1: base: DIR/loop.yaml: can't be read"),
        ("base: .", "FILE, line 1: base: DIR: can't be read (Is a directory)"),
    ],
)
def test_a_base_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "other.yaml").write_text("base: mine.yaml\n")
    (tmp_path / "bad.yaml").write_text("train: {stepz: 1}\n")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    said = refusal_of_file(tmp_path / "mine.yaml", content)
    assert said.replace(str(tmp_path), "DIR").startswith(message)


# Old names

OLD_FILE = """model:
  halvings: 1
  average_decay: 0.5
  equal_start: true
  dropout: 0.0
loss:
  r1_every: 16
optimizer:
  decay_factor: 0.5
  decay_every: 100000
train:
  accumulation: 4
  check_sync_every: 7
data:
  cache: disk
"""


def with_old_names(config: Config) -> None:
    model = config.model
    assert (model.downsamples, model.ema_decay, model.same_init) == (1, 0.5, True)
    assert config.train.grad_accum_steps == 4


def test_an_old_file_is_read_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD_FILE)
    with_old_names(read_config(path))
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: model.halvings is now model.downsamples, ")
    assert "train.accumulation is now train.grad_accum_steps" in record.getMessage()


def test_old_flags_are_taken_with_a_notice(empty: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["--model.halvings", "1", "--model.average_decay=0.5", "--model.equal_start=yes", "--train.accumulation=4"]
    arguments = parse(*words, "--start_anew", "--model.dropout=0", "--config", str(empty))
    with_old_names(arguments.config)
    assert arguments.restart
    (record,) = caplog.records
    assert record.getMessage().startswith("command line: ")
    assert "start_anew is now restart" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {dropout: 0.5}", "FILE: model.dropout: was removed; only its default, 0.0, is still accepted"),
        ("loss: {r1_every: four}", "FILE: loss.r1_every: was removed"),
        ("optimizer: {schedule: step}", "FILE, line 1: optimizer.schedule: must be 'constant' or 'linear', is 'step'"),
        ("model: {halvings: 1, downsamples: 1}", "FILE: model.halvings: is the old name of model.downsamples, given"),
        ("model:\n  halvings: x", "FILE, line 2: model.halvings: must be a valid integer, is 'x'"),
    ],
)
def test_old_keys_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    assert refusal_of_file(tmp_path / "mine.yaml", content).startswith(message)


# The source


def test_yaml_is_never_constructed_into_objects() -> None:
    source = inspect.getsource(unit.config_file)
    unsafe = ("yaml.load", "load_all", "UnsafeLoader", "FullLoader", "yaml.Loader", "parse_args", "parse_path")
    assert not [call for call in unsafe if call in source]


def test_hints_are_unambiguous_since_keys_are_unique_without_sections() -> None:
    assert len({key.split(".")[1] for key in DEFAULTS}) == len(DEFAULTS)


def test_the_module_does_not_import_torch() -> None:
    code = "import sys, unit.config_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
