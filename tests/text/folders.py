"""Tiny Hugging Face text encoders, saved to a folder with random weights."""

import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "apple", "a"]


def save_tokenizer(folder, longest=16):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=longest, **special).save_pretrained(folder)


def save_encoder(folder, kind="bert", tokenizer=True):
    """A folder with config.json, model.safetensors and a tokenizer; returns it."""
    import transformers as hf

    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    if kind == "bert":
        model = hf.BertModel(hf.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **small))
    elif kind == "clip_text":
        config = hf.CLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=16, eos_token_id=3, **small)
        model = hf.CLIPTextModel(config)
    elif kind == "clip":
        vision = {"image_size": 8, "patch_size": 4, **small}
        texts = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, **small}
        model = hf.CLIPModel(hf.CLIPConfig(text_config=texts, vision_config=vision, projection_dim=6))
    else:
        config = hf.T5Config(vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        model = hf.T5EncoderModel(config) if kind == "t5_encoder" else hf.T5Model(config)
    model.save_pretrained(folder)
    if tokenizer:
        save_tokenizer(folder)
    return folder
