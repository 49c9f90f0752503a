"""Text encoders: strings -> one vector per token. "wordllama" is a package, others are local folders."""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

WORDLLAMA = "wordllama"
LENGTH = 64  # tokens of wordllama, which has no limit of its own
LONGEST = 128  # tokens, of encoders that take more
AT_A_TIME = 64  # texts in one call of a transformer
_DECIDES = (".json", ".safetensors", ".txt", ".model")  # suffixes of the files that decide what an encoder returns
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


class TextEncoder(Protocol):
    """The interface of a text encoder."""

    name: str  # as open_text_encoder knows it
    hash: str  # of all that decides what it returns
    dim: int  # D, numbers in a vector
    length: int  # the most tokens of a text; what is longer is cut

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts: vectors float32 [B, L, D], mask bool [B, L] (True for tokens of the text), on the CPU.

        L is the longest of these texts, at least 1; an empty text has no tokens; what is no token is 0.
        """
        ...

    def fits(self, text: str) -> bool:
        """Whether a text is encoded in full, without truncation."""
        ...

    def words(self) -> list[str]:
        """Words whose vectors are the same in every text, so that a text is read word by word; [] if there are none."""
        ...


def words_read(encoder: TextEncoder, text: str) -> int:
    """The number of leading words of a text that an encoder reads in full."""
    words = text.split()
    return bisect_left(range(1, len(words) + 1), True, key=lambda count: not encoder.fits(" ".join(words[:count])))


def open_text_encoder(name: str, device: torch.device | str = "cpu") -> TextEncoder:
    """Open "wordllama" or the folder of a Hugging Face text encoder; InputError if there is none.

    Nothing is ever downloaded. device: what a transformer computes on.
    """
    if name == WORDLLAMA:
        return WordLlamaVectors()
    return TransformerStates(Path(name).expanduser(), torch.device(device))


class WordLlamaVectors:
    """WordLlama's token vectors: 32,000 of 256 numbers, distilled from the embeddings of large language models. They
    are context-free: what a phrase means is left to the network.

    Its files are read by themselves: the package's own loader looks for the tokenizer in the wrong place, then on the
    network.
    """

    name, length = WORDLLAMA, LENGTH

    def __init__(self) -> None:
        found = find_spec("wordllama")
        if found is None or not found.submodule_search_locations or find_spec("tokenizers") is None:
            raise InputError(lacking(WORDLLAMA))
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        root = Path(found.submodule_search_locations[0])
        weights, words = (
            root / "weights/l2_supercat_256.safetensors",
            root / "tokenizers/l2_supercat_tokenizer_config.json",
        )
        for path in (weights, words):
            if not path.is_file():
                raise InputError(f"--text {WORDLLAMA}: its package has no file {path}; another version may have it")
        self._tokenizer = Tokenizer.from_file(str(words))
        self._tokenizer.enable_truncation(LENGTH)
        self._vectors: np.ndarray = load_file(weights)["embedding.weight"]  # float16 [32000, 256]
        self.dim, self.hash = self._vectors.shape[1], file_hash([weights, words])

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts, see TextEncoder."""
        found = self._tokenizer.encode_batch([text.strip() for text in texts], add_special_tokens=False)
        longest = max([1, *(len(one.ids) for one in found)])
        ids, mask = np.zeros((2, len(texts), longest), np.int64)
        for row, one in enumerate(found):
            ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
        vectors = self._vectors[ids].astype(np.float32) * mask[..., None]
        return torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(mask.astype(bool))

    def fits(self, text: str) -> bool:
        """Whether a text is encoded in full, see TextEncoder."""
        return not self._tokenizer.encode(text.strip(), add_special_tokens=False).overflowing

    def words(self) -> list[str]:
        """The words in small letters that are one token, some 9,000."""
        tokens = (token[1:] for token in self._tokenizer.get_vocab() if token[:1] == "▁")
        return sorted(word for word in tokens if word.isascii() and word.isalpha() and word.islower())


class TransformerStates:
    """The last hidden states of a text encoder in a local folder: CLIP, T5, BERT and the like.

    The tokenizer lies in the same folder, or, as in a diffusers pipeline, in `tokenizer` beside it.
    """

    def __init__(self, folder: Path, device: torch.device):
        self.name, self.device = str(folder), device
        if not folder.is_dir():
            raise InputError(f"--text {folder} is neither {WORDLLAMA} nor a folder")
        if not (folder / "config.json").is_file():
            raise InputError(f"--text {folder} is no Hugging Face text encoder: it has no config.json")
        if not any(folder.glob("*.safetensors")):
            raise InputError(f"--text {folder} has no .safetensors: weights in other formats are not read")
        words = next((at for at in (folder, folder.parent / "tokenizer") if _has_tokenizer(at)), None)
        if words is None:
            raise InputError(f"--text {folder} has no tokenizer: it belongs beside its config.json")
        if find_spec("transformers") is None:
            raise InputError(lacking(str(folder)))
        try:
            self._tokenizer, self._model = _load(folder, words, device)
            places = getattr(self._model.config, "max_position_embeddings", None) or LONGEST
            self.length = min(LONGEST, places, self._tokenizer.model_max_length)
            self.dim = self(["a"])[0].shape[-1]
        except Exception as error:  # what is no such folder may raise nearly anything
            why = str(error).strip().split("\n")[0]
            raise InputError(f"--text {folder} cannot be read as a text encoder: {why}") from error
        self.hash = file_hash(sorted({*_deciding(folder), *_deciding(words)}))

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts, see TextEncoder; begin and end tokens count."""
        parts = [self._states(texts[start : start + AT_A_TIME]) for start in range(0, len(texts), AT_A_TIME)]
        longest = max(mask.shape[1] for _, mask in parts)
        widened = [torch.nn.functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one, _ in parts]
        masks = [torch.nn.functional.pad(mask, (0, longest - mask.shape[1])) for _, mask in parts]
        return torch.cat(widened), torch.cat(masks)

    def fits(self, text: str) -> bool:
        """Whether a text is encoded in full, see TextEncoder."""
        return len(self._tokenizer(text)["input_ids"]) <= self.length

    def words(self) -> list[str]:
        """None: a word's state depends on those around it."""
        return []

    def _states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        words = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.device)
        found = self._model(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).last_hidden_state
        blank = torch.tensor([not text.strip() for text in texts])
        mask = words["attention_mask"].cpu().bool() & ~blank[:, None]
        return found.float().cpu().masked_fill(~mask[..., None], 0.0), mask


def lacking(name: str) -> str:
    """The error sentence for a missing extra."""
    return f"--text {name} needs packages that are not installed: pip install 'bytepixels[text]'"


def file_hash(paths: Sequence[Path]) -> str:
    """sha256 of the files' names and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER)


def _deciding(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in _DECIDES]


def _load(folder: Path, words: Path, device: torch.device) -> tuple[Any, Any]:
    """Load (tokenizer, model) from local files only."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(words, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    kind = AutoModelForTextEncoding if type(config) in AutoModelForTextEncoding._model_mapping else AutoModel
    model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    model = getattr(model, "text_model", model)  # of CLIP, which has one for images too
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return tokenizer, model.eval().requires_grad_(False).to(device)
