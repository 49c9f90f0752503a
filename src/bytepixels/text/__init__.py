"""Text encoders, which map strings to one vector per token, and the encoded captions of a data set."""

from .caption_cache import EncodedCaptions, TextRows, store_captions
from .encoders import TextEncoder, open_text_encoder

__all__ = ["EncodedCaptions", "TextEncoder", "TextRows", "open_text_encoder", "store_captions"]
