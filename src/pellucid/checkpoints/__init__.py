"""A model as two files: `config.json` and `model.safetensors`, in the names of Hugging Face and out of them."""
