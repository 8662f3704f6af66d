"""Writing with a language model: sampling, streaming with a key-value cache, healing, scoring, int8."""
