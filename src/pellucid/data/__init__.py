"""From whatever the user has to batches: text, tokenizer, tokens."""
