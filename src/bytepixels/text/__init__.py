"""Text as vectors: encoders that map strings to one vector for each token, and the captions of a data set, encoded."""

from .caption_cache import EncodedCaptions, TextRows, store_captions
from .encoders import TextEncoder, open_text_encoder

__all__ = ["EncodedCaptions", "TextEncoder", "TextRows", "open_text_encoder", "store_captions"]
