"""A tiny chat model with random weights, and the exact log-probabilities of what it says first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2LMHeadModel

MARKS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("Yes", "yes", "YES", "ĠYes", "No", "no", "NO", "ĠNo")
YES, NO = WORDS[:4], WORDS[4:]
CONTEXT = 1536  # tokens


@dataclass(frozen=True)
class TinyChat:
    """A GPT-2 of two layers over bytes and the words yes and no.

    Attributes:
        tokens: each token as it is written, by its id.
    """

    tokenizer: Tokenizer
    model: GPT2LMHeadModel

    @property
    def tokens(self) -> list[str]:
        return [self.tokenizer.decode([i], skip_special_tokens=False) for i in range(self.tokenizer.get_vocab_size())]

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """A chat by its template."""
        said = "".join(f"{MARKS[0]}{one['role']}\n{one['content']}{MARKS[1]}\n" for one in messages)
        return list(self.tokenizer.encode(f"{said}{MARKS[0]}assistant\n").ids)

    def first(self, messages: list[dict[str, str]]) -> NDArray[np.float64]:
        """Natural log-probability of each token to begin the answer, shape (tokens,)."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([self.prompt_ids(messages)])).logits[0, -1].double()
            exact: NDArray[np.float64] = torch.log_softmax(logits, dim=-1).numpy()
            return exact

    def save(self, folder: Path) -> None:
        """Write weights, tokenizer and template for those who have no transformers."""
        np.savez(folder / "weights.npz", **{name: one.numpy() for name, one in self.model.state_dict().items()})
        saved = json.loads(self.tokenizer.to_str())["model"]
        vocabulary = self.tokenizer.get_vocab()
        told = {
            "tokens": sorted(vocabulary, key=lambda token: vocabulary[token]),
            "merges": [" ".join(pair) for pair in saved["merges"]],
            "marks": MARKS,
            "template": TEMPLATE,
            "config": self.model.config.to_dict(),
        }
        (folder / "model.json").write_text(json.dumps(told))


def tiny_chat() -> TinyChat:
    """The same model at each call."""
    tokenizer = _tokenizer()
    generator = torch.Generator().manual_seed(5)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4,
        tie_word_embeddings=False, activation_function="gelu_new", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.train(False)
    for name, weight in model.named_parameters():
        if "ln_" not in name:
            weight.data = torch.randn(weight.shape, generator=generator) * (0.3 if weight.dim() > 1 else 0.02)
    # All that it says begins with yes or no, mostly: their embeddings point to where the last layer always does.
    ahead = torch.randn(64, generator=generator)
    model.transformer.ln_f.bias.data = ahead
    for word in WORDS:
        model.lm_head.weight.data[tokenizer.token_to_id(word)] += 0.1 * ahead
    return TinyChat(tokenizer, model)


def _tokenizer() -> Tokenizer:
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault(word[:end], len(vocabulary))
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return tokenizer
