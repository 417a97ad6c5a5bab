"""The model: the stream state, the signals, the ranker and the sequence model."""

from model.compiled_code import choose_cache_folder

choose_cache_folder()
