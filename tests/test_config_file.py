"""A configuration file is read strictly: every mistake is one line with file, line and key."""

import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import unit.config
import unit.config_file
from unit.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig
from unit.config_file import read_config, to_yaml, write_config
from unit.errors import ConfigError

DEFAULTS = Config().to_flat_dict()
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


def refusal_of_file(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert str(refused.value).isprintable(), "one line"
    return str(refused.value).replace(str(path), "FILE")


# Values


def test_an_empty_value_in_a_file_is_null_and_a_quoted_one_is_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  workers:\n  name_a: 'null'\n  name_b: \"~\"\n")
    data = read_config(path).data
    assert (data.workers, data.name_a, data.name_b) == (None, "null", "~")


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


# Errors

CHAIN = "&a0 [x]" + "".join(f", &a{k + 1} [*a{k}, *a{k}]" for k in range(30))
"""A list of 2**30 elements."""
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
        (f"{{[{CHAIN}]: 1}}", "FILE, line 1: a key must be a name"),
        (f"train: {{[{CHAIN}]: 1}}", "FILE, line 1: a key must be a name"),
        (f"x: &x [{CHAIN}]\n? *x\n: 1", "FILE, line 1: x: no such section"),
        ("data: &d {a: *d}", "FILE, line 1: data.a: must be one value"),
        ("#" * 200_000, "FILE: can't be read (larger than 100,000 bytes)"),
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


# Presets that build on others


def test_a_file_overrides_its_base_and_the_base_its_own(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "root.yaml").write_text("train: {steps: 1, seed: 1, batch_size: 1}\n")
    (tmp_path / "presets" / "base.yaml").write_text("base: ../root.yaml\ntrain: {seed: 2, batch_size: 2}\n")
    (tmp_path / "mine.yaml").write_text("train: {batch_size: 3}\nbase: presets/base.yaml\n")
    train = read_config(tmp_path / "mine.yaml").train
    assert (train.steps, train.seed, train.batch_size) == (1, 2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: mine.yaml", "FILE, line 1: base: FILE is based on this file; remove the circular base"),
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
