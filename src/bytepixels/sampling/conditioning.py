"""Conditioning of a run: its text encoder and training captions, encoded prompts, and labels."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import events
from ..config.run import Config
from ..data import Packed
from ..errors import InputError
from ..events import Work
from ..runs.labels import find_label as label_of
from ..runs.run_directory import Run
from ..text import TextEncoder, TextRows, open_text_encoder, store_captions
from ..text.encoders import WORDLLAMA, words_read

KEPT = 64  # captions that a run remembers: its images without a prompt have them in turn
Text = tuple[Tensor, Tensor]  # vectors [B, L, D] and mask [B, L]


def with_text(config: Config, packed: Packed, source: str) -> tuple[Config, dict[str, Any]]:
    """Fill in the settings that the text encoder decides; also returns what the run records of it, {} without text."""
    name, network = config.network.text, config.network
    if name is None:
        return config, {}
    if packed.captions is None:
        wanted = "a metadata.csv with the columns file_name and text, or a .txt beside each image"
        raise InputError(f"--text {name} needs captions, and {source} has none: {wanted}")
    if packed.classes and network.labels and config.train.label_dropout == 0:
        raise InputError("--text beside class labels needs a --label-dropout above 0, or --no-labels")
    encoder = open_text_encoder(name)
    name = name if name == WORDLLAMA else str(Path(name).expanduser().resolve())
    different = list(dict.fromkeys(caption for caption in packed.captions if caption))
    kept = [different[k * len(different) // KEPT] for k in range(KEPT)] if len(different) > KEPT else different
    digest = hashlib.sha256(json.dumps(packed.captions).encode()).hexdigest()
    text = {"hash": encoder.hash, "captions": kept, "sha256": digest}
    return replace(config, network=replace(network, text=name, text_dim=encoder.dim)), {"text": text}


def check_same_text(old: Run, text: dict[str, Any] | None) -> None:
    """Raise InputError if a run would be resumed with another encoder, or other captions, than it began with."""
    before = old.text
    if before is None and text is None:
        return
    if before is None or text is None:
        raise InputError(f"{old.path} was begun {'with' if before else 'without'} --text; choose another --run")
    for name, what in (("hash", "another text encoder"), ("sha256", "other captions")):
        if before[name] != text[name]:
            raise InputError(f"{old.path} was begun with {what}; choose another --run")


def text_rows(run: Run, packed: Packed, device: torch.device) -> TextRows | None:
    """The encoded training captions, by positions of images; None if the run has no text conditioning."""
    if run.text is None:
        return None
    if packed.captions is None:
        raise InputError(f"{run.path} was trained on captions, and {packed.meta['source']} has none now")
    with Work("encode", len(packed.captions), "captions") as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        encoder = encoder_of(run.path, str(run.config.network.text), run.text["hash"], device)
        return TextRows(store_captions(packed.captions, encoder, progress=show), device)


def encoder_of(path: Path, name: str, digest: str, device: torch.device) -> TextEncoder:
    """The text encoder of the run at `path`, by its name and hash; InputError if it cannot be found."""
    try:
        encoder = open_text_encoder(name, device)
    except InputError as error:
        raise InputError(f"{path} was trained with the text encoder {name}: {error}") from error
    if encoder.hash != digest:
        raise InputError(f"{path} was trained with another text encoder than {name} is now")
    return encoder


def prompts_of(run: Run, seeds: Sequence[int], prompt: str | None) -> list[str] | None:
    """The text of each image: `prompt`, or the run's recorded captions in turn (seed modulo their number); None without
    text conditioning."""
    if run.text is None:
        if prompt is not None:
            raise InputError(f"--prompt {prompt!r}: {run.path} was trained without text (train --text)")
        return None
    if prompt is not None and not prompt.strip() and run.config.train.label_dropout == 0:
        raise InputError(f"--prompt {prompt!r} has no words, and {run.path} was trained with --label-dropout 0")
    known = run.text["captions"]
    return [known[seed % len(known)] if prompt is None else prompt for seed in seeds]


def text_of(run: Run, seeds: Sequence[int], prompt: str | None, device: torch.device) -> Text | None:
    """The encoded text of each image, see prompts_of. A note says how much of a long prompt is read."""
    prompts = prompts_of(run, seeds, prompt)
    if prompts is None or run.text is None:
        return None
    known = tuple(run.text["captions"]) if prompt is None else (prompt,)
    vectors, mask = _encoded(
        run.path, str(run.config.network.text), run.text["hash"], known, prompt is not None, device
    )
    rows = torch.tensor([known.index(one) for one in prompts], dtype=torch.long, device=device)
    return vectors[rows], mask[rows]


def prompt_name(prompt: str | None) -> str | None:
    """A prompt's part of a folder name: its first words, and a digest of all of it."""
    if prompt is None:
        return None
    words = re.sub(r"[^\w.]+", "-", prompt).strip("-.")[:40]
    return "-".join([*([words] if words else []), hashlib.sha256(prompt.encode()).hexdigest()[:6]])


@lru_cache(maxsize=2)
def _encoded(path: Path, name: str, digest: str, texts: tuple[str, ...], prompt: bool, device: torch.device) -> Text:
    """Encode these texts, or one prompt, with the run's encoder, which is not kept in memory between previews."""
    encoder = encoder_of(path, name, digest, device)
    if prompt and (read := words_read(encoder, texts[0])) < len(words := texts[0].split()):
        which = f"the first {read} of {len(words):,} words; left out: {' '.join(words[read:])}" if read else "a part"
        events.say(f"note: the text encoder reads {encoder.length} tokens, of this prompt {which}")
    vectors, mask = encoder(texts)
    return vectors.to(device), mask.to(device)


def find_label(run: Run, label: str | None) -> int | None:
    """A class of the run by its name or, where no class is named by a number, by its position from 0."""
    if label is None:
        return None
    if not run.classes:
        raise InputError(f"--label {label}: {run.path} was trained without labels")
    return label_of("--label", label, run.classes)


def labels_of(run: Run, seeds: Sequence[int], label: int | None) -> list[int] | None:
    """The class of each image: `label`, or the classes in turn (seed modulo their number).

    None without classes, and without a label where the run reads text, which may say otherwise.
    """
    if not run.classes or (label is None and run.text is not None):
        return None
    return [seed % len(run.classes) if label is None else label for seed in seeds]
