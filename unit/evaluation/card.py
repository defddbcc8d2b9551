"""The model card of a model: README.md of a repository of the Hugging Face Hub."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from unit.domains import Domain
from unit.errors import UserError
from unit.evaluation.metric_table import Metrics, describe_counts, table_rows, verdict
from unit.evaluation.run_images import read_environment
from unit.translation.provenance.marks import weights_sha256
from unit.translation.translator import Translator

_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl
gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl odbl openrail openrail++ osl-3.0 pddl postgresql
unlicense wtfpl zlib
"""
"""The Hub's names of licences; any other is "other" there, with a name of its own."""
_PEOPLE = {
    "none": "No people can be recognised in them, says who trained the model.",
    "consented": "All people who can be recognised in them consented to this use, says who trained the model.",
    "unknown": "Unknown. *Whoever publishes this model: can people be recognised, and did they consent? Faces are "
    "personal data; until this is answered, don't use the model on people.*",
}
_RESULTS = {"kid": "KID x 1000, EfficientNet-Lite0", "psnr": "PSNR, dB", "ssim": "SSIM"}
"""What the Hub's model index gets, with its names there."""


@dataclass(frozen=True)
class Card:
    """What a card is made from, besides the model itself."""

    run: Path
    """the folder of the model, whose environment.json tells the numbers of images"""
    metrics: Metrics | None
    """None: not measured"""
    features: str | None
    """name of the features behind KID"""
    licence: str | None
    """of the model; None: that of the images"""


def model_card(translator: Translator, card: Card) -> str:
    """Return the card in Markdown, with the YAML front matter that the Hub reads."""
    licence = card.licence or translator.config.data.licence
    front = yaml.safe_dump(_front_matter(translator, card, licence), sort_keys=False, allow_unicode=True, width=120)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"md": _markdown, "shell": shlex.quote}
    template = environment.from_string(resources.files("unit.evaluation").joinpath("card.md").read_text("utf-8"))
    names = translator.names
    text = template.render(
        names=names,
        domains=list(Domain),
        direction=f"{names.a}2{names.b}",
        step=translator.step,
        data=translator.config.data,
        synthetic=translator.config.data.synthetic,
        counts=dict(zip(Domain, _counts(card.run, tuple(names)), strict=True)),
        people=_PEOPLE[translator.config.data.people],
        metrics=[_direction(translator, card, i) for i in Domain] if card.metrics else [],
        features=card.features,
        weights=weights_sha256(translator.networks.state_dict()),
        licence_text=licence or "Not stated: without a licence, nobody may use the model.",
    )
    return f"---\n{front}---\n\n{text}"


def open_questions(translator: Translator, licence: str | None) -> list[str]:
    """Return what must be known before a model is published, and is not."""
    data, questions = translator.config.data, list[str]()
    if data.licence is None and not data.synthetic:
        questions.append("where do the photos come from, and may models be trained on them? (data.licence)")
    if data.people == "unknown" and not data.synthetic:
        questions.append("can people be recognised in the photos, and did they consent? (data.people)")
    if not (licence or data.licence):
        questions.append("under which licence do you publish the model? (--licence)")
    return questions


def _front_matter(translator: Translator, card: Card, licence: str | None) -> dict[str, Any]:
    names, known = translator.names, licence and licence.lower().replace(" ", "-")
    front: dict[str, Any] = {"license": "unknown" if not licence else known if known in _LICENCES.split() else "other"}
    if front["license"] == "other":
        front["license_name"] = licence
    front |= {
        "library_name": "unit-translation",
        "pipeline_tag": "image-to-image",
        "tags": ["image-to-image", "unpaired-image-to-image-translation", "pytorch"],
    }
    if card.metrics:
        results = [result for i in Domain if (result := _result(card.metrics, names[i], names[i.other], i))]
        front["model-index"] = [{"name": f"{names.a}-{names.b}", "results": results}]
    return front


def _result(metrics: Metrics, source: str, target: str, i: Domain) -> dict[str, Any] | None:
    """Return one direction's metrics for the Hub's model index."""
    translated = metrics[i.direction]["translated"]
    values = [
        {"type": name, "name": label, "value": round(value, 4)}
        for name, label in _RESULTS.items()
        if (value := translated[name]) is not None
    ]
    if not values:
        return None
    return {
        "task": {"type": "image-to-image", "name": f"{source} to {target}"},
        "dataset": {"type": "held-out-images", "name": describe_counts(metrics[i.direction])},
        "metrics": values,
    }


def _direction(translator: Translator, card: Card, i: Domain) -> Mapping[str, Any]:
    assert isinstance(card.metrics, dict)
    groups, names = card.metrics[i.direction], translator.names
    return {
        "title": f"{names[i]} to {names[i.other]}",
        "counts": describe_counts(groups),
        "verdict": verdict(groups),
        "rows": table_rows(groups, card.features),
    }


def _counts(run: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the numbers of training and held-out images of each domain, as environment.json tells them."""
    try:
        environment = read_environment(run)
    except UserError:
        environment = {}

    def count(key: str, name: str) -> str:
        numbers = environment.get(key)
        number = numbers.get(name) if isinstance(numbers, dict) else None
        return f"{number:,}" if isinstance(number, int) else "unknown"

    return [(count("training_images", name), count("test_images", name)) for name in names]


def _markdown(text: str) -> str:
    """Escape a user's text: what Markdown and HTML would read as markup."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(text, quote=False))
