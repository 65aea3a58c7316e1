"""One small random model of each family: the rows of docs/architectures.md and the parameters of its tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from family_inputs import (
    Inputs,
    image,
    image_and_text,
    image_in_text,
    large_image,
    patches_in_text,
    spectrogram,
    text,
    text_to_text,
    waveform,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Attributes:
        name: what the table calls it.
        model: the class in transformers, or the class itself.
        sizes: arguments of its configuration.
        inputs: makes the arguments of ``forward``.
        note: for the table.
    """

    name: str
    model: str | type[PreTrainedModel]
    sizes: dict[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Inputs] = text
    note: str = ""

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return getattr(transformers, self.model) if isinstance(self.model, str) else self.model

    def build(self) -> PreTrainedModel:
        """The float model, in fp32, with linears whose outputs are as large as their inputs."""
        torch.manual_seed(0)
        model = self.model_class(self.model_class.config_class(**self.sizes)).eval()
        for module in model.modules():
            if isinstance(module, nn.Linear | transformers.pytorch_utils.Conv1D):
                nn.init.normal_(module.weight, std=min(module.weight.shape) ** -0.5)
        return model


class ReaderConfig(PreTrainedConfig):
    model_type = "reader"


class ReaderModel(PreTrainedModel):
    """Multiplies by the weight of one of its linears itself, and calls the other."""

    config_class = ReaderConfig

    def __init__(self, config: ReaderConfig):
        super().__init__(config)
        self.embed = nn.Embedding(100, 32)
        self.read = nn.Linear(32, 48)
        self.called = nn.Linear(48, 32)
        self.post_init()

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        hidden = functional.linear(self.embed(input_ids), self.read.weight, self.read.bias)
        return (self.called(torch.relu(hidden)),)


# Special tokens inside of the vocabulary.
_TOKENS = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_BLOCK = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 2}
_ENCODER = {**_BLOCK, **_TOKENS, "max_position_embeddings": 32}
_DECODER = {**_ENCODER, "num_key_value_heads": 1, "head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT2 = {**_TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
_T5 = {**_TOKENS, "d_model": 32, "d_kv": 16, "d_ff": 44, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
_BART = {
    **_TOKENS,
    **{f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in
       {"layers": 1, "ffn_dim": 44, "attention_heads": 2}.items()},
    "d_model": 32, "max_position_embeddings": 32, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
_VISION = {**_BLOCK, "image_size": 16, "patch_size": 8}
_TWO_TOWERS = {"text_config": _ENCODER, "vision_config": _VISION, "projection_dim": 24}
_DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 44, "decoder_ffn_dim": 44}
_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_QWEN_VL = {
    "text_config": {**_DECODER, "rope_parameters": _ROPE},
    "image_token_id": 99, "vision_start_token_id": 98, "video_token_id": 97, "vision_end_token_id": 96,
}  # fmt: skip

FAMILIES = [
    Family("Llama 2, 3", "LlamaForCausalLM", {**_DECODER, "tie_word_embeddings": False}),
    Family("Mistral", "MistralForCausalLM", _DECODER),
    Family("Mixtral", "MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}),
    Family("Qwen2, Qwen2.5", "Qwen2ForCausalLM", {**_DECODER, "tie_word_embeddings": True}),
    Family("Qwen3", "Qwen3ForCausalLM", _DECODER),
    Family("Qwen3 MoE", "Qwen3MoeForCausalLM", {**_DECODER, **_EXPERTS}),
    Family(
        "Qwen3.5 (text)",
        "Qwen3_5ForCausalLM",
        {
            **_DECODER,
            "layer_types": ["linear_attention", "full_attention"],
            **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
            **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
        },
    ),
    Family("Gemma", "GemmaForCausalLM", _DECODER),
    Family("Gemma 2", "Gemma2ForCausalLM", _DECODER),
    Family("Gemma 3 (text)", "Gemma3ForCausalLM", _DECODER),
    Family("Phi 1, 2", "PhiForCausalLM", _ENCODER),
    Family("Phi 3, 4", "Phi3ForCausalLM", _DECODER),
    Family("GPT-2", "GPT2LMHeadModel", _GPT2, note="`Conv1D`, whose weight is `[K, N]`"),
    Family("GPT", "OpenAIGPTLMHeadModel", _GPT2, note="`Conv1D`"),
    Family("GPT-Neo", "GPTNeoForCausalLM", {**_ENCODER, "num_layers": 2, "num_heads": 2,
                                            "attention_types": [[["global", "local"], 1]]}),
    Family("GPT-J", "GPTJForCausalLM", {**_GPT2, "rotary_dim": 8, "tie_word_embeddings": False}),
    Family("GPT-NeoX, Pythia", "GPTNeoXForCausalLM", _ENCODER),
    Family("GPT-BigCode", "GPTBigCodeForCausalLM", _GPT2),
    Family("OPT", "OPTForCausalLM", {**_ENCODER, "ffn_dim": 44, "word_embed_proj_dim": 24}),
    Family("BLOOM", "BloomForCausalLM", {**_TOKENS, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
    Family("Falcon", "FalconForCausalLM", _ENCODER, note="`FalconLinear`"),
    Family("OLMo 2", "Olmo2ForCausalLM", _DECODER),
    Family("Granite", "GraniteForCausalLM", _DECODER),
    Family("Cohere", "CohereForCausalLM", _DECODER),
    Family("GLM-4", "Glm4ForCausalLM", _DECODER),
    Family("SmolLM3", "SmolLM3ForCausalLM", _DECODER),
    Family(
        "DeepSeek V3",
        "DeepseekV3ForCausalLM",
        {
            **{**_DECODER, "head_dim": 8, "num_key_value_heads": 2}, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 24, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16,
            "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
        },
    ),
    Family("gpt-oss", "GptOssForCausalLM", {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("Mamba", "MambaForCausalLM", {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    Family(
        "Mamba 2",
        "Mamba2ForCausalLM",
        {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 16,
         "n_groups": 1, "chunk_size": 8},
    ),
    Family("RWKV 4", "RwkvForCausalLM", {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2}),
    Family("BERT", "BertForMaskedLM", _ENCODER),
    Family("RoBERTa", "RobertaForMaskedLM", _ENCODER),
    Family("ALBERT", "AlbertForMaskedLM", {**_ENCODER, "embedding_size": 16}, note="one layer, run twice"),
    Family("DistilBERT", "DistilBertForMaskedLM",
           {**_TOKENS, "dim": 32, "hidden_dim": 44, "n_layers": 2, "n_heads": 2}),
    Family("ELECTRA", "ElectraForPreTraining", {**_ENCODER, "embedding_size": 16}),
    Family("DeBERTa v2, v3", "DebertaV2ForMaskedLM", {**_ENCODER, "relative_attention": True,
                                                      "pos_att_type": ["p2c", "c2p"]}),
    Family("MobileBERT", "MobileBertForMaskedLM", {**_ENCODER, "embedding_size": 16, "intra_bottleneck_size": 16}),
    Family("ModernBERT", "ModernBertForMaskedLM", _ENCODER),
    Family("T5", "T5ForConditionalGeneration", _T5, text_to_text),
    Family("Flan-T5, T5 1.1", "T5ForConditionalGeneration",
           {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, text_to_text),
    Family("BART", "BartForConditionalGeneration", _BART, text_to_text),
    Family("Marian", "MarianMTModel", _BART, text_to_text),
    Family("Whisper", "WhisperForConditionalGeneration",
           {**_BART, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32}, spectrogram),
    Family("wav2vec 2.0", "Wav2Vec2ForCTC",
           {**_ENCODER, "conv_dim": [16, 16], "conv_kernel": [10, 4], "conv_stride": [5, 4],
            "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}, waveform),
    Family("ViT", "ViTForImageClassification", _VISION, image),
    Family("DINOv2", "Dinov2Model", {**_VISION, "mlp_ratio": 2}, image),
    Family("Swin", "SwinModel",
           {"image_size": 16, "patch_size": 4, "window_size": 2, "embed_dim": 16, "depths": [1, 1],
            "num_heads": [2, 2]}, image),
    Family("Deformable DETR", "DeformableDetrForObjectDetection",
           {**_DETR, "num_queries": 4, "backbone_config": {**_RESNET, "out_features": ["stage2", "stage3", "stage4"]},
            "use_pretrained_backbone": False, "num_feature_levels": 3, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2},
           large_image, note="heads of the layers share one weight"),
    Family("CLIP", "CLIPModel", _TWO_TOWERS, image_and_text),
    Family("SigLIP", "SiglipModel", {"text_config": _ENCODER, "vision_config": _VISION}, image_and_text),
    Family(
        "LLaVA",
        "LlavaForConditionalGeneration",
        {"text_config": {"model_type": "llama", **_DECODER},
         "vision_config": {"model_type": "clip_vision_model", **_VISION},
         "image_token_index": 99, "image_token_id": 99, "vision_feature_layer": -1},
        image_in_text,
    ),
    Family(
        "Gemma 3",
        "Gemma3ForConditionalGeneration",
        {"text_config": _DECODER, "vision_config": {"model_type": "siglip_vision_model", **_VISION},
         "mm_tokens_per_image": 4, "image_token_index": 99, "image_token_id": 99},
        image_in_text,
    ),
    Family(
        "Qwen2-VL",
        "Qwen2VLForConditionalGeneration",
        {**_QWEN_VL, "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2,
                                       "patch_size": 4}},
        patches_in_text,
        note="`get_dtype` reads the weight of one layer",
    ),
    Family(
        "Qwen2.5-VL",
        "Qwen2_5_VLForConditionalGeneration",
        {**_QWEN_VL, "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 44, "num_heads": 2,
                                       "out_hidden_size": 32, "patch_size": 4, "window_size": 16,
                                       "fullatt_block_indexes": [1]}},
        patches_in_text,
    ),
    Family("a model that reads a weight", ReaderModel, note="calls `F.linear(x, self.read.weight, self.read.bias)`"),
]  # fmt: skip
