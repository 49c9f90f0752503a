"""Text encoders: what they make of a text, that they read local files alone, and what is refused."""

import json
import socket
import sys

import numpy as np
import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.text import open_text_encoder
from bytepixels.text.encoders import LENGTH, words_read
from tests.text.folders import WORDS, save_encoder, save_tokenizer


@pytest.fixture(scope="module")
def wordllama():
    return open_text_encoder("wordllama")


@pytest.fixture
def offline(monkeypatch):
    """Any look at the network is an error."""

    def refused(*arguments, **named):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_wordllama_reads_its_package_alone(offline):
    vectors, mask = open_text_encoder("wordllama")(["red apple", "", "an apple that is green"])
    assert vectors.shape == (3, 5, 256)
    assert vectors.dtype == torch.float32
    assert mask.sum(dim=1).tolist() == [2, 0, 5]
    assert (vectors[~mask] == 0).all()
    assert "wordllama" not in sys.modules  # importing it sets up logging for everybody


def test_wordllama_has_the_vectors_that_the_package_averages(wordllama):
    """Its own embedding of a text is their mean: the package's own code, on the same files."""
    from pathlib import Path

    import wordllama as package
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    root = Path(package.__file__).parent
    weights = load_file(root / "weights/l2_supercat_256.safetensors")["embedding.weight"]
    words = Tokenizer.from_file(str(root / "tokenizers/l2_supercat_tokenizer_config.json"))
    reference = package.WordLlamaInference(weights, words)
    texts = ["red apple", "family: man, woman, girl", "✨"]
    vectors, mask = wordllama(texts)
    means = vectors.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    np.testing.assert_allclose(means.numpy(), reference.embed(texts), rtol=1e-4, atol=1e-4)


def test_a_text_is_the_same_in_any_company(wordllama):
    alone, _ = wordllama(["red apple"])
    together, mask = wordllama(["a much longer text than that one", "red apple"])
    assert torch.equal(together[1, mask[1]], alone[0])
    spaced, _ = wordllama([" red apple\n"])
    assert torch.equal(spaced, alone)


def test_words_of_like_meaning_are_near(wordllama):
    vectors, _ = wordllama(["apple", "fruit", "car"])
    apple, fruit, car = torch.nn.functional.normalize(vectors.sum(dim=1))
    assert apple @ fruit > apple @ car + 0.1


def test_what_is_too_long_is_cut_and_nothing_is_no_token(wordllama):
    _, mask = wordllama(["word " * 500])
    assert mask.shape == (1, LENGTH)
    assert mask.all()
    vectors, mask = wordllama(["", "   "])
    assert vectors.shape == (2, 1, 256)
    assert not mask.any()


def test_how_many_words_of_a_long_text_are_read(wordllama, tmp_path):
    long = " ".join(f"word{k}" for k in range(100))
    read = words_read(wordllama, long)
    first = " ".join(long.split()[:read])
    assert 0 < read < 100
    assert torch.equal(wordllama([first])[0][0], wordllama([long])[0][0, : wordllama([first])[1].sum()])
    assert not wordllama.fits(" ".join(long.split()[: read + 1]))
    assert words_read(wordllama, "a red\napple ") == 3
    assert words_read(wordllama, "") == 0
    folder = open_text_encoder(str(save_encoder(tmp_path)))
    assert words_read(folder, "red " * 100) == 14  # of 16 tokens, [CLS] and [SEP] are two
    assert words_read(folder, "red " * 14) == 14


@pytest.mark.parametrize("missing", ["wordllama", "tokenizers"])
def test_a_missing_package_is_one_sentence(monkeypatch, missing):
    from bytepixels.text import encoders

    find = encoders.find_spec
    monkeypatch.setattr(encoders, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(InputError, match=r"--text wordllama needs packages .* pip install 'bytepixels\[text\]'"):
        open_text_encoder("wordllama")


@pytest.mark.parametrize("kind", ["bert", "clip_text", "clip", "t5", "t5_encoder"])
def test_an_encoder_in_a_folder(tmp_path, offline, kind):
    """Padding changes nothing, the last hidden states are the model's own."""
    import transformers as hf

    encoder = open_text_encoder(str(save_encoder(tmp_path / "encoder", kind)))
    assert (encoder.name, encoder.dim, encoder.length) == (str(tmp_path / "encoder"), 8, 16)
    vectors, mask = encoder(["red apple", "", "a a a a"])
    assert mask.sum(dim=1).tolist() == [4, 0, 6]  # [CLS] and [SEP] count
    assert (vectors[~mask] == 0).all()
    alone, _ = encoder(["red apple"])
    torch.testing.assert_close(vectors[0, :4], alone[0], rtol=1e-5, atol=1e-6)
    own = {"bert": hf.BertModel, "t5": hf.T5EncoderModel, "t5_encoder": hf.T5EncoderModel}.get(kind, hf.CLIPTextModel)
    ids = torch.tensor([[2, WORDS.index("red"), WORDS.index("apple"), 3]])
    expected = own.from_pretrained(tmp_path / "encoder").eval()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)
    assert encoder(["red " * 100])[1].shape == (1, 16)


def test_many_texts_are_what_few_are(tmp_path):
    encoder = open_text_encoder(str(save_encoder(tmp_path)))
    texts = ["red " * (k % 7) + "apple" for k in range(150)]
    vectors, mask = encoder(texts)
    for k in (0, 6, 149):
        own, _ = encoder([texts[k]])
        torch.testing.assert_close(vectors[k, mask[k]], own[0], rtol=1e-5, atol=1e-6)


def test_a_tokenizer_beside_the_encoder_as_pipelines_have_it(tmp_path):
    save_encoder(tmp_path / "text_encoder", "clip_text", tokenizer=False)
    with pytest.raises(InputError, match="has no tokenizer"):
        open_text_encoder(str(tmp_path / "text_encoder"))
    save_tokenizer(tmp_path / "tokenizer")
    assert open_text_encoder(str(tmp_path / "text_encoder"))(["red"])[0].shape == (1, 3, 8)


def test_the_hash_is_of_what_decides(tmp_path):
    one = open_text_encoder(str(save_encoder(tmp_path / "one"))).hash
    assert open_text_encoder(str(save_encoder(tmp_path / "same"))).hash == one
    (tmp_path / "one/README.md").write_text("nothing")
    assert open_text_encoder(str(tmp_path / "one")).hash == one
    settings = json.loads((tmp_path / "one/config.json").read_text())
    (tmp_path / "one/config.json").write_text(json.dumps(settings | {"layer_norm_eps": 1e-3}))
    assert open_text_encoder(str(tmp_path / "one")).hash != one


def test_refusals(tmp_path, monkeypatch):
    def refused(match, folder):
        with pytest.raises(InputError, match=match) as caught:
            open_text_encoder(str(folder))
        assert "\n" not in str(caught.value)

    refused("word2vec is neither wordllama nor a folder", tmp_path / "word2vec")
    folder = save_encoder(tmp_path / "encoder")
    (folder / "config.json").rename(tmp_path / "config.json")
    refused("is no Hugging Face text encoder: it has no config.json", folder)
    (folder / "config.json").write_text('{"model_type": "no such thing"}')
    refused("cannot be read as a text encoder", folder)
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "model.safetensors").write_bytes(b"damaged")
    refused("cannot be read as a text encoder", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("has no .safetensors: weights in other formats are not read", folder)


def test_a_missing_transformers_is_one_sentence(tmp_path, monkeypatch):
    from bytepixels.text import encoders

    folder, find = save_encoder(tmp_path), encoders.find_spec
    monkeypatch.setattr(encoders, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(InputError, match=r"needs packages that are not installed: pip install 'bytepixels\[text\]'"):
        open_text_encoder(str(folder))
