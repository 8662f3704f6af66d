"""Networks that see; those that the hub has not, as in torchvision's builders (0.29)."""

from typing import Any

TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}
PICTURES = {"num_channels": 3, "image_size": 224}
VIT = PICTURES | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "pooler_act": "tanh",
}
CONVNEXT = PICTURES | {
    "patch_size": 4,
    "hidden_sizes": [96, 192, 384, 768],
    "depths": [3, 3, 9, 3],
    "hidden_act": "gelu",
}
BUILT = PICTURES | {"num_classes": 1000}
MOBILENET = PICTURES | {"depth_multiplier": 1.0, "min_depth": 8, "hidden_act": "relu6"}

VISION: dict[str, dict[str, Any]] = {
    "alexnet": BUILT | {"groups": [1, 1, 1, 1, 1]},
    "clip": {"projection_dim": 512},
    "clip_text_model": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
    "clip_vision_model": TOWER,
    "convnext": CONVNEXT | {"layer_scale_init_value": 1e-6},
    "convnextv2": CONVNEXT,
    "deit": VIT,
    "dense": {"bias": True, "activation": "relu", "output_activation": "linear"},
    "densenet": BUILT | {"growth_rate": 32, "block_config": [6, 12, 24, 16], "num_init_features": 64, "bn_size": 4},
    "dinov2": VIT | {"patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": False, "use_mask_token": True},
    "dinov2_with_registers": VIT
    | {"mlp_ratio": 4, "use_swiglu_ffn": False, "use_mask_token": True, "num_register_tokens": 4},
    "dinov3_vit": VIT
    | {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
    "efficientnet": PICTURES
    | {
        "image_size": 600,
        "width_coefficient": 2.0,
        "depth_coefficient": 3.1,
        "depth_divisor": 8,
        "in_channels": [32, 16, 24, 40, 80, 112, 192],
        "out_channels": [16, 24, 40, 80, 112, 192, 320],
        "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "strides": [1, 2, 2, 2, 1, 2, 1],
        "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
        "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
        "squeeze_expansion_ratio": 0.25,
        "hidden_dim": 2560,
        "hidden_act": "swish",
        "dropout_rate": 0.5,
    },
    "gemma3": {},
    "googlenet": BUILT | {"aux_logits": True},
    "inception_v3": BUILT | {"image_size": 299, "aux_logits": True},
    "lenet-5": {"num_channels": 1, "image_size": 32},
    "llama4_vision_model": TOWER
    | {
        "num_hidden_layers": 34,
        "num_attention_heads": 16,
        "intermediate_size": 5632,
        "image_size": 448,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projector_input_dim": 4096,
        "projector_output_dim": 4096,
        "vision_output_dim": 7680,
    },
    "mobilenet_v1": MOBILENET | {"classifier_dropout_prob": 0.999},
    "mobilenet_v2": MOBILENET
    | {
        "depth_divisible_by": 8,
        "expand_ratio": 6.0,
        "output_stride": 32,
        "first_layer_is_expansion": True,
        "finegrained_output": True,
        "classifier_dropout_prob": 0.8,
    },
    "mobilenet_v3": BUILT,
    "regnet": PICTURES
    | {
        "embedding_size": 32,
        "hidden_sizes": [128, 192, 512, 1088],
        "depths": [2, 6, 12, 2],
        "groups_width": 64,
        "layer_type": "y",
        "hidden_act": "relu",
        "downsample_in_first_stage": True,
    },
    "resnet": PICTURES
    | {
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    },
    "resnext": BUILT | {"groups": 1, "width_per_group": 64},
    "siglip": {},
    "siglip_text_model": {
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "siglip_vision_model": TOWER | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "vision_use_head": True},
    "squeezenet": BUILT | {"version": "1_0"},
    "swin": PICTURES
    | {
        "patch_size": 4,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "use_absolute_embeddings": False,
    },
    "vgg": BUILT,
    "vit": VIT,
}
