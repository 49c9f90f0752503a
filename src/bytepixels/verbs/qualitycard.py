"""The card that evaluate RUN prints: a record of eval.jsonl as lines of text."""

from collections.abc import Iterator
from typing import Any

from ..evaluate.features import title
from ..evaluate.quality import as_noise

NAMES = {
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "sliced_wasserstein": "sliced Wasserstein",
    "two_sample_accuracy": "told apart by a classifier",
    "inception_score": "Inception score",
}


def card(record: dict[str, Any]) -> Iterator[str]:
    """What was found, in lines."""
    features, reference = record["features"], record["reference"]
    floor = record["floor"]
    yield ""
    yield f"{'':<36}{'samples':>20}{'floor':>20}"
    for key, name in ({"frechet": title(features["name"])} | NAMES).items():
        if key in record["measures"]:
            own, best = (number(one[key]) for one in (record["measures"], floor["measures"]))
            yield f"{name:<36}{own:>20}{best:>20}"
    rungs = record["ladder"]
    yield how_far(record)
    yield "The scale: " + ", ".join(f"{name} {value:.3g}" for name, value in rungs.items())
    yield f"The floor is what {floor['of']} come to."
    if first := record.get("first_stage"):
        yield f"Through the run's autoencoder alone they come to {number(first)}: the least to be expected."
    if record["warning"]:
        yield f"warning: {record['warning']}"
    for by, sets in record["copies"].items():
        yield _copies(by, sets)
    yield from _drift(record["drift"])
    guided = f", guidance {record['guidance']:g}" if record["guidance"] != 1 else ""
    yield (
        f"{record['n']:,} samples of {record['checkpoint']} ({record['weights']}), seeds from {record['seed']}: "
        f"{record['sampler']}, {record['steps']} steps, {record['spacing']}{guided}, {record['evaluations']} "
        f"evaluations a picture, {record['seconds']:.0f} s"
    )
    yield (
        f"against {reference['n']:,} pictures of {reference['source']}, split {reference['split']}; features "
        f"{features['name']} {features['sha256'][:12]}, resize {features['resize']}"
    )


def how_far(record: dict[str, Any]) -> str:
    """The Frechet distance in words: beside held-out pictures, and those with noise."""
    floor, value = record["floor"], record["frechet_distance"]
    if value <= floor["measures"]["frechet"]["value"]:
        return f"No further from the training pictures than {floor['of']}."
    return f"As far from the training pictures as {floor['of']} with {as_noise(value, record['ladder'])}."


def number(one: dict[str, Any]) -> str:
    """A value with its interval."""
    if one["value"] is None:
        return "-"
    return f"{one['value']:.4g}" + ("" if one["interval"] is None else f" ± {one['interval']:.2g}")


def _copies(by: str, sets: dict[str, Any]) -> str:
    """One sentence on copies."""
    samples, control = sets["samples"], sets["copyist"]
    null = sets.get("held_out")
    text = (
        f"Copies by {by}: {100 * samples['rate']:.1f}% ± {100 * samples['interval']:.1f}% of {samples['n']:,} samples"
    )
    if null is not None:
        text += f", {100 * null['rate']:.1f}% of held-out pictures"
    text += f", {100 * control['rate']:.0f}% of a copyist's"
    if null is not None:
        text += f"; {100 * samples['near']:.1f}% are nearer than 95% of the held-out ones are"
        text += ": it copies." if sets["more_than_held_out"] else ": no sign of copying."
    return text + ("" if null is not None else "; without held-out pictures that says little.")


def _drift(found: list[dict[str, Any]]) -> Iterator[str]:
    """A line for what leaves its interval, and one for all that does not."""
    inside = [one["name"] for one in found if not one["outside"]]
    for one in found:
        if one["outside"]:
            far = max(one["outside"], key=lambda k: abs(one["samples"][k] - one["data"][k]) / one["half"][k])
            where = f" (number {far + 1} of {len(one['samples'])})" if len(one["samples"]) > 4 else ""
            yield (
                f"warning: drift of {one['name']}{where}: {one['samples'][far]:.4g}, the data's "
                f"{one['data'][far]:.4g} ± {one['half'][far]:.2g}"
            )
    if inside:
        yield f"No drift of {'; '.join(inside)}."
