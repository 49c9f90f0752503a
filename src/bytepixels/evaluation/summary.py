"""The card of evaluate: a record of eval.jsonl as lines of text."""

from collections.abc import Iterator
from typing import Any

from ..metrics.features import title
from ..metrics.sample_metrics import as_noise

NAMES = {
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "inception_score": "Inception score",
}
BETTER = {"frechet": "lower", "kernel": "lower"}


def card(record: dict[str, Any]) -> Iterator[str]:
    """Format the results as lines."""
    features, reference = record["features"], record["reference"]
    floor = record["floor"]
    yield ""
    yield f"{'':<36}{'samples':>24}{'floor':>24}  best is"
    for key, name in ({"frechet": title(features["name"])} | NAMES).items():
        if key in record["measures"]:
            own, best = (number(one[key]) for one in (record["measures"], floor["measures"]))
            yield f"{name:<36}{own:>24}{best:>24}  {BETTER.get(key, 'higher')}"
    yield f"The floor is what {floor['of']} come to."
    yield how_far(record)
    yield from _scale(record["ladder"])
    if first := record.get("first_stage"):
        yield f"Through the run's autoencoder alone they come to {number(first)}: the least to be expected."
    if record["warning"]:
        yield f"warning: {record['warning']}"
    for by, sets in record["copies"].items():
        yield copies_sentence(by, sets)
    yield from _drift(record["drift"])
    guided = f", guidance {record['guidance']:g}" if record["guidance"] != 1 else ""
    yield (
        f"{record['n']:,} samples of {record['checkpoint']} ({record['weights']}), seeds from {record['seed']}: "
        f"{record['sampler']}, {record['steps']} steps, {record['spacing']}{guided}, {record['evaluations']} "
        f"evaluations an image, {record['seconds']:.0f} s"
    )
    yield (
        f"against {reference['n']:,} images of {reference['source']}, split {reference['split']}; features "
        f"{features['name']} {features['sha256'][:12]}, resize {features['resize']}"
    )


def how_far(record: dict[str, Any]) -> str:
    """Describe the Frechet distance in words, beside held-out images and noisy ones."""
    floor, value = record["floor"], record["frechet_distance"]
    if value <= floor["measures"]["frechet"]["value"]:
        return f"No further from the training images than {floor['of']}."
    return f"About as far off as real images with {as_noise(value, record['ladder'])}."


def _scale(rungs: dict[str, float]) -> Iterator[str]:
    """A line for each corruption: the distances of real images that were corrupted so."""
    yield "For scale, the same distance of real images that were damaged (lower is nearer):"
    kinds: dict[str, dict[str, float]] = {}
    for name, value in rungs.items():
        kind, _, degree = name.rpartition(" ")
        kinds.setdefault(kind if degree.replace(".", "").isdigit() else name, {})[degree] = value
    titles = {"noise": "noise of std, of 255", "blur": "blur, pixels", "brighter by": "brighter by, of 255"}
    for kind, values in kinds.items():
        shown = "  ".join(f"{degree}: {value:.3g}" for degree, value in values.items())
        yield f"  {titles.get(kind, kind):<22}" + (
            shown if len(values) > 1 or kind in titles else f"{values.popitem()[1]:.3g}"
        )


def number(one: dict[str, Any]) -> str:
    """Format a value with its interval."""
    if one["value"] is None:
        return "-"
    return f"{one['value']:.4g}" + ("" if one["interval"] is None else f" ± {one['interval']:.2g}")


def copies_sentence(by: str, sets: dict[str, Any]) -> str:
    """Describe the copies in one sentence."""
    samples, control = sets["samples"], sets["copyist"]
    null = sets.get("held_out")
    rate = f"{100 * samples['rate']:.1f}% ± {100 * samples['interval']:.1f}% of {samples['n']:,} samples"
    text = f"Copies of training images (distance by {by}): {rate}"
    if null is None:
        found = "No copies found" if samples["rate"] == 0 else "Some were found"
        return f"{text}. {found}; add a test split to judge how much that means."
    text += (
        f"; held-out images {100 * null['rate']:.1f}%; a model that memorised everything {100 * control['rate']:.0f}%"
    )
    text += f"; {100 * samples['near']:.1f}% are nearer than 95% of the held-out images are"
    if not sets["more_than_held_out"]:
        return f"{text}: no sign of copying."
    if samples["rate"] > null["rate"]:
        return f"{text}: it copies."
    return f"{text}: no more copies, but nearer to training images than new ones are, as guidance makes samples too."


def _drift(found: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each statistic outside its interval, and one line for all others."""
    inside = [one["name"] for one in found if not one["outside"]]
    for one in found:
        if one["outside"]:
            yield f"warning: {drift_sentence(one)}"
    if inside:
        yield f"As in the data: {'; '.join(inside)}."


def drift_sentence(one: dict[str, Any]) -> str:
    """Describe the number of a statistic that lies farthest outside the data's interval."""
    far = max(one["outside"], key=lambda k: abs(one["samples"][k] - one["data"][k]) / max(one["half"][k], 1e-12))
    own, data, half, count = one["samples"][far], one["data"][far], one["half"][far], len(one["samples"])
    if one["name"] == "brightness":
        step = 256 // count
        shown = f"{100 * own:.1f}% in samples, {100 * data:.1f}% ± {100 * half:.1g}% in the data"
        return f"pixels of brightness {step * far}..{step * far + step - 1} of 255: {shown}"
    shown = f"{own:.4g} in samples, {data:.4g} ± {half:.2g} in the data"
    names = {"mean of each channel": "mean", "standard deviation of each channel": "standard deviation"}
    if one["name"] in names:
        return f"{names[one['name']]} of channel {far + 1} of {count}: {shown}"
    if one["name"] == "power spectrum, dB":
        return f"power (dB) at {far + 1} of {count} cycles per image: {shown}"
    return f"{one['name']}, number {far + 1} of {count}: {shown}"
