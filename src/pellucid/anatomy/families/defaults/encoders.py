"""Networks that read text and fill gaps in it, or write another."""

from typing import Any

from pellucid.anatomy.families.defaults.language import LLAMA

BERT = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
DEBERTA = BERT | {
    "vocab_size": 50265,
    "type_vocab_size": 0,
    "relative_attention": False,
    "max_relative_positions": -1,
    "position_biased_input": True,
    "pos_att_type": [],
    "pooler_hidden_act": "gelu",
}
T5 = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu",
    "dropout_rate": 0.1,
    "tie_word_embeddings": True,
}
BART = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "d_model": 1024,
    "encoder_layers": 12,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_layers": 12,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "dropout": 0.1,
}

ENCODERS: dict[str, dict[str, Any]] = {
    "albert": BERT
    | {
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
    },
    "bart": BART,
    "bert": BERT,
    "camembert": BERT,
    "data2vec-text": BERT,
    "deberta": DEBERTA,
    "deberta-v2": DEBERTA
    | {
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
    },
    "distilbert": {
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "activation": "gelu",
        "dropout": 0.1,
    },
    "electra": BERT | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "eurobert": LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "classifier_pooling": "late",
    },
    "m2m_100": BART | {"vocab_size": 128112, "activation_function": "relu", "tie_word_embeddings": True},
    "marian": BART | {"vocab_size": 58101, "share_encoder_decoder_embeddings": True, "tie_word_embeddings": True},
    "mbart": BART | {"tie_word_embeddings": True},
    "modernbert": {
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "hidden_activation": "gelu",
        "max_position_embeddings": 8192,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "classifier_bias": False,
        "classifier_activation": "gelu",
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "tie_word_embeddings": True,
    },
    "mpnet": {name: value for name, value in BERT.items() if name != "type_vocab_size"}
    | {"vocab_size": 30527, "relative_attention_num_buckets": 32},
    "mt5": T5
    | {
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
    },
    "nomic_bert": BERT
    | {"vocab_size": 30528, "hidden_act": "silu", "hidden_dropout_prob": 0.0, "max_position_embeddings": 2048},
    "pegasus": BART | {"tie_word_embeddings": True},
    "roberta": BERT | {"vocab_size": 50265},
    "t5": T5,
    "umt5": T5
    | {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"},
    "whisper": {
        "vocab_size": 51865,
        "num_mel_bins": 80,
        "d_model": 384,
        "encoder_layers": 4,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "decoder_layers": 4,
        "decoder_attention_heads": 6,
        "decoder_ffn_dim": 1536,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "activation_function": "gelu",
        "dropout": 0.0,
        "tie_word_embeddings": True,
    },
    "xlm-roberta": BERT,
    "xlm-roberta-xl": BERT
    | {
        "vocab_size": 250880,
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
}
