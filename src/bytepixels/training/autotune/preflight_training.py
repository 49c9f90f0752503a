"""The training section of data doctor: what train will do, its budget, and its cost on this machine."""

import os
from statistics import median

import torch

from ...config.presets import PRESETS
from ...config.training import TrainConfig
from ...data.inspection.statistics import DatasetStatistics
from ...wording import bytes_of, many
from ..forecast import forecast
from ..loop import total_steps
from .preflight import Diagnosis
from .preflight_advice import LEAST_IMAGES, TrainingPlan
from .trial import OVERFIT_GOOD, OVERFIT_STEPS, OverfitCheck, StepMeasurement


def train_paragraph(data: DatasetStatistics, plan: TrainingPlan) -> str:
    """Say in sentences what train will do with the images."""
    config, (height, width) = plan.config, data.packed_size
    fit = {"crop": "cropped to their centre", "pad": "padded", "squash": "squashed"}[config.data.fit]
    changes = {
        "reshaped": f"of another shape, {fit}",
        "enlarged": "smaller, enlarged",
        "composed": f"with transparent parts, composed on {config.data.background}",
    }
    changed = "; ".join(f"{words}: {data.counts[mark]:,}" for mark, words in changes.items() if data.counts[mark])
    skipped = f" and skips {many(len(data.unreadable), 'file')} that it cannot read" if data.unreadable else ""
    labels, without = many(len(data.classes or ()), "class label"), f"{100 * config.train.label_dropout:g}%"
    learnt = f"Learnt with {labels}, which {without} of the images go without."
    if not data.classes:
        learnt = "Unconditional: there are no class labels."
    elif not config.network.labels:
        learnt = f"The {labels} are not learnt: the preset has --no-labels."
    sentences = [
        f"train takes {many(data.images, 'image')} (split {data.split}){skipped}.",
        f"Each becomes {height} x {width}, {' + '.join(data.pixels.channels)}.",
        f"Among them, {changed}." if changed else "None has to be cropped, enlarged or composed.",
        "Random horizontal flips." if config.data.flip == "yes" else "No flips.",
    ]
    return " ".join([*sentences, learnt])


def budget_sentence(plan: TrainingPlan) -> str:
    """Describe the budget, and the rule behind it."""
    images, most = plan.config.train.images, PRESETS[plan.config.preset]().train.images
    said = f"{images:,} images ({plan.epochs:,.{1 if plan.epochs < 100 else 0}f} passes)"
    if images == most:
        return f"{said}, the preset's."
    if images == LEAST_IMAGES:
        return f"{said}, the minimum."
    why = "the longer a small set is trained on, the more the model copies it (Bonnaire et al. 2025)"
    return f"{said}, less than the preset's {most:,}: {why}."


def machine_lines(found: Diagnosis) -> list[tuple[str, str]]:
    """Describe the network, one step, the budget, memory and disk."""
    step, train = found.step, found.plan.config.train
    memory = f"about {bytes_of(step.bytes)} for {many(step.at_a_time, 'image')} at a time, reckoned"
    lines = [("network", f"{step.weights:,} weights")]
    if (measured := found.measured) is not None:
        peak = "not known here" if measured.peak_memory_bytes is None else bytes_of(measured.peak_memory_bytes)
        at_once = min(train.micro_batch or train.batch, measured.measured_batch)
        memory += f"; measured: {peak} at the most, with {at_once}"
        images, device = total_steps(train) * train.batch, torch.device(found.device)
        lines += [("a step", step_sentence(measured, train))]
        lines += [("the budget", forecast(images, measured.images_per_second, device))]
    packed, run = bytes_of(found.packed_bytes), f"a checkpoint {bytes_of(step.checkpoint_bytes)}"
    return [
        *lines,
        ("memory", f"{memory}; {bytes_of(step.free_bytes)} are free"),
        ("disk", f"packed set {packed}; {run}, of which {train.keep} are kept; {bytes_of(found.free_bytes)} are free"),
    ]


def step_sentence(step: StepMeasurement, train: TrainConfig) -> str:
    """Describe the seconds per step, their spread, and how they were measured."""
    scaled = f", scaled to {train.batch}" if step.measured_batch < train.batch else ""
    spread = f"{min(step.seconds):.3g} to {max(step.seconds):.3g} in {many(len(step.seconds), 'step')}"
    load = "" if step.load is None else f", load {step.load:.1f} on {os.cpu_count()} cores"
    measured = f"{spread} of {step.measured_batch} images{scaled}; {train.precision}, {many(step.threads, 'thread')}"
    return f"{median(step.seconds):.3g} s ({measured}{load}): {step.images_per_second:,.3g} images/s"


def overfit_sentence(check: OverfitCheck | None) -> str:
    """Say how far the loss of one batch fell, and whether that is as it should be."""
    if check is None:
        return "Not tried: a step does not fit in memory, or takes too long."
    share = check.loss_share
    fell = "is not finite" if share is None else f"is {share:.0%} of the loss of predicting nothing"
    verdict = "too few steps to tell on this machine"
    if check.learns is not None:
        verdict = f"{'as' if check.learns else 'NOT as'} it should be, at most {OVERFIT_GOOD:.0%}"
    limit = f"the limit was {check.limit_seconds:g} s or {OVERFIT_STEPS} steps"
    batch, after = many(check.images, "image"), many(check.steps, "step")
    return f"One batch of {batch}, over and over: after {after} its loss {fell} ({verdict}; {limit})."
