"""A new, small Qwen2-VL with random weights and a tokenizer made of the words that it will meet."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import AddedToken, Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import Checkpoint, ModelConfig
from fvs_ros.model.preprocess import PixelConfig
from fvs_ros.model.prompt import SYSTEM
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.tiny import CONTROL_TOKENS, byte_tokenizer
from fvs_ros.patrol.questions import words
from fvs_ros.training.config import ScratchConfig

ROLES = ("system", "user", "assistant")
# Standard deviation of new weights in the language model's layers: transformers' own 0.02 suits widths of thousands; at
# a width of 256, twice to three times as much learnt twice as fast.
_TEXT_SPREAD = 0.04
_ROPE_THETA = 10_000.0
_VISION_MLP_RATIO = 2


def new_checkpoint(config: ScratchConfig, seed: int) -> Checkpoint:
    """A checkpoint with random weights; the same seed gives the same ones."""
    tokenizer = word_tokenizer(patrol_vocabulary()) if config.vocabulary == "patrol" else byte_tokenizer()
    network_config = _network_config(config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Qwen2VLForConditionalGeneration(network_config)
    with torch.no_grad():
        for parameter in Qwen2VLBackbone(network).layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(_TEXT_SPREAD / network_config.text_config.initializer_range)
    return Checkpoint(
        config=ModelConfig(
            network_config,
            FlashMemoryConfig(
                csm_slots=config.csm_slots,
                dam_slots=config.dam_slots,
                window_slots=config.window_slots,
                time_code=config.time_code,
                time_weight=config.time_weight,
            ),
        ),
        network=network,
        tokenizer=tokenizer,
        pixels=PixelConfig(max_pixels=config.frame_pixels),
        end_tokens=(tokenizer.convert_tokens_to_ids("<|im_end|>"),),
    )


def patrol_vocabulary() -> list[str]:
    """Every word that a model of patrols meets: in questions, in answers, and in its own prompt."""
    return [*words(), *SYSTEM.rstrip(".").split(), *ROLES]


def adopt_tokens(config: Qwen2VLConfig, tokenizer: Qwen2Tokenizer) -> None:
    """Sets the vocabulary's size and the numbers of control tokens in a configuration to those of a tokenizer."""
    token = tokenizer.convert_tokens_to_ids
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.bos_token_id = token("<|endoftext|>")
    config.text_config.eos_token_id = token("<|im_end|>")
    config.image_token_id = token("<|image_pad|>")
    config.video_token_id = token("<|video_pad|>")
    config.vision_start_token_id = token("<|vision_start|>")
    config.vision_end_token_id = token("<|vision_end|>")


def word_tokenizer(words: Iterable[str]) -> Qwen2Tokenizer:
    """A Qwen2 tokenizer (byte-level BPE) in which each word, with and without a space before it, is one token."""
    tokenizer = Tokenizer(BPE())
    pieces = Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = Sequence([pieces, ByteLevel(add_prefix_space=False, use_regex=False)])
    # Merges until nothing is left to merge, so that every word becomes one token.
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=1_000_000, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    unique = sorted(set(words))
    tokenizer.train_from_iterator([*unique, *(f" {word}" for word in unique)], trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    found = Qwen2Tokenizer(vocab=learnt["vocab"], merges=[tuple(pair) for pair in learnt["merges"]])
    found.add_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    return found


def _network_config(config: ScratchConfig, tokenizer: Qwen2Tokenizer) -> Qwen2VLConfig:
    found = Qwen2VLConfig(
        text_config={
            "tie_word_embeddings": config.tied_embeddings,
            "hidden_size": config.text_width,
            "intermediate_size": config.text_mlp,
            "num_hidden_layers": config.text_depth,
            "num_attention_heads": config.text_heads,
            "num_key_value_heads": config.text_kv_heads,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": _ROPE_THETA,
                "mrope_section": list(config.rope_section),
            },
        },
        vision_config={
            "depth": config.vision_depth,
            "embed_dim": config.vision_width,
            "hidden_size": config.text_width,
            "num_heads": config.vision_heads,
            "mlp_ratio": _VISION_MLP_RATIO,
        },
        tie_word_embeddings=config.tied_embeddings,
    )
    adopt_tokens(found, tokenizer)
    return found
