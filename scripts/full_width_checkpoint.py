"""Writes a checkpoint of a published width with random weights, laid out as on the hub.

    python scripts/full_width_checkpoint.py qwen3-vl-2b OUT

Sharded bfloat16 weights with their index, the keys of `config.json` that transformers 4.57 wrote, and a tokenizer whose
control tokens have their published ids. It takes the place of weights that cannot be downloaded where the question is
whether a model loads and how much memory it takes; its answers are noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AddedToken, Qwen2Tokenizer

from fvs_ros.bench.shapes import SHAPES, random_checkpoint

PLAIN_TOKENS = 151_643
# From id 151643 on, as in the tokenizers of Qwen3-VL.
ADDED_TOKENS = (
    *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
    *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
)
SHARD = "2GB"


def main() -> None:
    """Writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=[name for name in SHAPES if name.startswith("qwen3")], help="its sizes")
    parser.add_argument("out", type=Path, help="folder that is written")
    arguments = parser.parse_args()
    checkpoint = random_checkpoint(arguments.shape, torch.device("cpu"), torch.bfloat16, seed=0)
    network: Any = checkpoint.network
    network.save_pretrained(arguments.out, max_shard_size=SHARD)
    tokenizer().save_pretrained(arguments.out)
    pixels = checkpoint.pixels
    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    files: dict[str, dict[str, Any]] = {
        "config.json": hub_config(network.config.to_dict()),
        "generation_config.json": {"do_sample": True, "eos_token_id": [151_645, 151_643]},
        "preprocessor_config.json": {**pixels.to_preprocessor(), "size": size, "min_pixels": None, "max_pixels": None},
    }
    for name, values in files.items():
        (arguments.out / name).write_text(json.dumps(values, indent=2) + "\n")


def hub_config(values: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` of transformers 5 in the keys of 4.57, with the published control tokens."""
    text, vision = dict(values["text_config"]), dict(values["vision_config"])
    rope = text.pop("rope_parameters")
    vision.pop("rope_parameters", None)
    text["rope_theta"] = rope.pop("rope_theta")
    ids = {"vision_start_token_id": 151_652, "vision_end_token_id": 151_653}
    ids |= {"image_token_id": 151_655, "video_token_id": 151_656}
    text |= {"rope_scaling": rope, "bos_token_id": 151_643, "eos_token_id": 151_645}
    return {**values, **ids, "text_config": text, "vision_config": {**vision, "model_type": values["model_type"]}}


def tokenizer() -> Qwen2Tokenizer:
    """Bytes alone, and fillers up to the control tokens."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"<{number}>" for number in range(PLAIN_TOKENS - len(letters)))]
    made = Qwen2Tokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    made.add_tokens([AddedToken(f"<|{name}|>", special=True) for name in ADDED_TOKENS])
    return made


if __name__ == "__main__":
    main()
