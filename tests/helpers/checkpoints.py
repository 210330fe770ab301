"""Tiny random checkpoints of every layout, made through upstream's own classes, with real trained tokenizers.

Weights are drawn such that logits differ clearly between labels and texts (a fresh initialisation gives nearly
the same logit everywhere, which would let any bug pass). Everything is seeded: a checkpoint is always the same.
"""

from __future__ import annotations

import importlib.util
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from gliclass import GLiClassModel, GLiClassModelConfig
from gliclass.pipeline import (
    BaseZeroShotClassificationPipeline,
    BiEncoderZeroShotClassificationPipeline,
    DecoderKVZeroShotClassificationPipeline,
    EncoderDecoderZeroShotClassificationPipeline,
    UniEncoderZeroShotClassificationPipeline,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    BartConfig,
    BertConfig,
    CamembertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MBartConfig,
    ModernBertConfig,
    MPNetConfig,
    MT5Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    UMT5Config,
    XLMRobertaConfig,
)

from gliclass_rerank import ScoreRequest

PIPELINES: Mapping[str, type[BaseZeroShotClassificationPipeline]] = {
    "uni-encoder": UniEncoderZeroShotClassificationPipeline,
    "bi-encoder": BiEncoderZeroShotClassificationPipeline,
    "bi-encoder-fused": BiEncoderZeroShotClassificationPipeline,
    "encoder-decoder": EncoderDecoderZeroShotClassificationPipeline,
    "encoder-decoder-cls": EncoderDecoderZeroShotClassificationPipeline,
    "decoder-kv": DecoderKVZeroShotClassificationPipeline,
}

MARKERS = ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")
HIDDEN = 32
POSITIONS = 512

CORPUS = """The kernel schedules processes and hands each of them a slice of time on the processor.
A mountain stream carries cold water from the glacier down to the valley and its villages.
Bread rises because yeast turns sugar into gas, which the dough then holds in small bubbles.
The court found that the contract was void, since neither party had signed the last page.
Vaccines show the immune system a harmless part of a virus, so that it can learn to fight it.
Prices rose by two percent in March, while wages and pensions stayed where they were.
She plays the violin in an orchestra and teaches children on weekends, mostly beginners.
Photosynthesis stores the energy of sunlight in sugar and sets oxygen free.
How do I reset my password? Where can I download the invoice? Why was my card declined?
The committee will meet on Tuesday at 9:30 in room 14 to discuss the budget for 2025.
Black holes bend light; their gravity is so strong that nothing leaves them again.
To install the package run the command below, then restart the service and read the log.
Le chat dort sur la chaise près de la fenêtre. Der Zug fährt heute später ab.
El café está caliente. 東京は日本の首都です。 Привет, как дела? naïve façade, 25 °C, €40, 😀 ok!
def main(argv): return sum(int(value) for value in argv[1:])  # prints nothing
label text example sep science politics sports health law music cooking travel finance weather
positive negative neutral question answer relevant not relevant supports refutes urgent spam
a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
0 1 2 3 4 5 6 7 8 9 . , ; : ! ? ' " ( ) [ ] { } < > / \\ | @ # $ % ^ & * - _ = + ~ `""".splitlines()


@dataclass(frozen=True, slots=True)
class Spec:
    """One layout: a backbone, upstream's flags, and sometimes an unusual tokenizer."""

    name: str
    backbone: str = "bert"
    flags: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None

    @property
    def architecture(self) -> str:
        return str(self.flags.get("architecture_type", "uni-encoder"))


@dataclass(frozen=True, slots=True)
class Built:
    """A checkpoint folder, and the model of upstream's that was saved there.

    The model itself is the reference: upstream's own loading draws the tied embeddings of encoder-decoders anew.
    """

    spec: Spec
    folder: Path
    model: GLiClassModel


def build_checkpoint(spec: Spec, folder: Path) -> Built:
    """Write a checkpoint folder of ``spec`` to ``folder/<name>``."""
    folder = folder / spec.name
    folder.mkdir(parents=True)
    make_encoder, tokenizer_kind = BACKBONES[spec.backbone]
    tokenizer = save_tokenizer(spec.tokenizer or tokenizer_kind, folder)
    encoder = make_encoder(tokenizer.get_vocab_size())
    flags: dict[str, Any] = {
        "class_token_index": tokenizer.token_to_id("<<LABEL>>"),
        "text_token_index": tokenizer.token_to_id("<<SEP>>"),
        "example_token_index": tokenizer.token_to_id("<<EXAMPLE>>"),
        "vocab_size": tokenizer.get_vocab_size(),
        "problem_type": "multi_label_classification",
        "prompt_first": True,
        "scorer_num_heads": 4,
        "scorer_mlp_hidden_size": 48,
    }
    if spec.architecture.startswith("bi-encoder"):
        # Another tokenizer and another size than the text encoder's, so that mixing them up shows.
        labels = save_tokenizer("unigram", folder / "label_tokenizer")
        label_encoder = BertConfig(**_sizes(labels.get_vocab_size(), hidden=48))
        flags |= {"label_model_name": str(folder / "label_tokenizer"), "label_model_config": label_encoder}
    if spec.architecture == "decoder-kv":
        flags["sep_token_index"] = tokenizer.token_to_id("<<SEP>>")
    config = GLiClassModelConfig(encoder_config=encoder, encoder_model="none", **flags | dict(spec.flags))
    torch.manual_seed(zlib.crc32(spec.name.encode()))
    model = GLiClassModel(config).eval()
    randomize(model)
    model.save_pretrained(folder)
    return Built(spec, folder, model)


INDEPENDENT = {
    "class_token_pooling": "average",
    "pooling_strategy": "avg",
    "extract_text_features": True,
    "normalize_features": True,
    "logit_scale_init_value": 10.0,
}
"""Flags of a checkpoint with independent labels."""


def build_independent(folder: Path, *, name: str = "independent", backbone: str = "bert") -> Path:
    """Write a checkpoint with independent labels, which embeds, and return its folder."""
    made = build_checkpoint(Spec(name, backbone, INDEPENDENT), folder).folder
    (made / "gliclass_rerank.json").write_text(json.dumps({"labels": "independent"}), "utf-8")
    return made


def randomize(model: torch.nn.Module) -> None:
    """Draw weights that keep activations at about unit size: products by fan-in, norms near one, all biases used."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                # Less in the last layer before a dot product, so that logits stay below about ten.
                gain = 0.6 if name.endswith("projector.linear_2.weight") else 1.5
                parameter.normal_(0, gain * parameter.shape[-1] ** -0.5)
            elif parameter.ndim == 1 and name.endswith("bias"):
                parameter.normal_(0, 0.2)
            elif parameter.ndim == 1:
                parameter.normal_(1, 0.2)


def save_tokenizer(kind: str, folder: Path) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json, and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_str(trained_tokenizer(kind))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special_tokens(tokenizer)}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return tokenizer


def upstream_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """What upstream's pipeline is given: the same tokenizer.json in transformers' class."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens(tokenizer))  # type: ignore[no-untyped-call]


def upstream_inputs(built: Built, request: ScoreRequest) -> dict[str, torch.Tensor]:
    """What upstream's own pipeline feeds to the model for this one request."""
    pipeline = PIPELINES[built.spec.architecture](
        built.model, upstream_tokenizer(built.folder), max_length=4096, device="cpu", progress_bar=False
    )
    examples = [{"text": example.text, "labels": list(example.labels)} for example in request.examples]
    return dict(
        pipeline.prepare_inputs(
            [request.text], list(request.labels), True, examples=examples or None, prompt=request.prompt or None
        )
    )


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens of a tokenizer by transformers' names."""
    candidates = {
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "eos_token": ("</s>", "<|end|>"),
        "pad_token": ("[PAD]", "<pad>", "<|end|>"),
        "unk_token": ("[UNK]", "<unk>"),
    }
    return {
        role: next(name for name in names if tokenizer.token_to_id(name) is not None)
        for role, names in candidates.items()
        if any(tokenizer.token_to_id(name) is not None for name in names)
    }


@cache
def trained_tokenizer(kind: str) -> str:
    """Train a tokenizer on `CORPUS`, with the markers as added tokens; returns its JSON."""
    tokenizer = TOKENIZERS[kind.removesuffix("-loose")]()
    # "-loose": markers that are added, but not special, as in some published checkpoints.
    special = not kind.endswith("-loose")
    markers = [AddedToken(marker, special=special, normalized=False) for marker in MARKERS]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(markers)
    return str(tokenizer.to_str())


def _learned(tokenizer: Tokenizer, size: int) -> list[str]:
    """Pieces of `CORPUS` by byte pair encoding, the one trainer whose result is the same in every run."""
    tokenizer.model = models.BPE()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size))
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces = _learned(tokenizer, 200)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*names, *pieces, *(f"##{piece}" for piece in pieces)])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer.add_special_tokens(names)
    return _framed(tokenizer, "[CLS]", "[SEP]")


def _byte_level(names: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450, special_tokens=names, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _byte_level_bert() -> Tokenizer:
    tokenizer = _framed(_byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]), "[CLS]", "[SEP]")
    # ModernBERT's own has runs of blanks as added tokens that are not special.
    tokenizer.add_tokens([AddedToken("    ", normalized=True), AddedToken("  ", normalized=True)])
    return tokenizer


def _byte_level_bart() -> Tokenizer:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False
    )
    return tokenizer


def _byte_level_bare() -> Tokenizer:
    tokenizer = _byte_level(["<|end|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _unigram(scheme: str, names: list[str], unknown: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False, right=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    pieces = [*names, *_learned(tokenizer, 300)]
    # Log probabilities by Zipf's law: what was merged first is the most frequent.
    scored = [(piece, -math.log(i + 2)) for i, piece in enumerate(pieces)]
    tokenizer.model = models.Unigram(scored, unk_id=names.index(unknown), byte_fallback=False)
    tokenizer.add_special_tokens(names)
    return tokenizer


def _unigram_bert(scheme: str = "always") -> Tokenizer:
    return _framed(_unigram(scheme, ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]"), "[CLS]", "[SEP]")


def _unigram_t5(scheme: str = "always") -> Tokenizer:
    return _framed(_unigram(scheme, ["<pad>", "</s>", "<unk>"], "<unk>"), None, "</s>")


def _framed(tokenizer: Tokenizer, first: str | None, last: str) -> Tokenizer:
    used = [name for name in (first, last) if name]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*([first] if first else []), "$A", last]),
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in used],
    )
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "byte-level": _byte_level_bert,
    "byte-level-bart": _byte_level_bart,
    "byte-level-bare": _byte_level_bare,
    "unigram": _unigram_bert,
    "unigram-t5": _unigram_t5,
    "unigram-t5-first": lambda: _unigram_t5("first"),
}


def _sizes(vocabulary: int, *, hidden: int = HIDDEN) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": POSITIONS,
    }


def _deberta(vocabulary: int) -> PretrainedConfig:
    attention: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
                 "max_relative_positions": -1, "position_biased_input": False, "norm_rel_ebd": "layer_norm",
                 "share_att_key": True}  # fmt: skip
    return DebertaV2Config(**_sizes(vocabulary), **attention, type_vocab_size=0, layer_norm_eps=1e-7, pad_token_id=0)


def _modernbert(vocabulary: int) -> PretrainedConfig:
    sizes = _sizes(vocabulary) | {"num_hidden_layers": 3, "local_attention": 16, "global_attn_every_n_layers": 2}
    return ModernBertConfig(**sizes, pad_token_id=3, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2)


def _t5(vocabulary: int) -> PretrainedConfig:
    tokens: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5Config(
        vocab_size=vocabulary, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", **tokens,
    )  # fmt: skip


def _bart(vocabulary: int) -> PretrainedConfig:
    return BartConfig(
        vocab_size=vocabulary, d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=POSITIONS,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip


def _qwen3(vocabulary: int) -> PretrainedConfig:
    sizes = _sizes(vocabulary) | {"hidden_size": 64}
    return Qwen3Config(**sizes, num_key_value_heads=2, head_dim=16, pad_token_id=0, eos_token_id=0)


def _roberta(vocabulary: int) -> PretrainedConfig:
    sizes = _sizes(vocabulary) | {"max_position_embeddings": POSITIONS + 2}
    return RobertaConfig(**sizes, bos_token_id=0, pad_token_id=1, eos_token_id=2)


def _distilbert(vocabulary: int) -> PretrainedConfig:
    return DistilBertConfig(
        vocab_size=vocabulary, dim=HIDDEN, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=POSITIONS
    )


def _deberta_v1(vocabulary: int) -> PretrainedConfig:
    return DebertaConfig(
        **_sizes(vocabulary), relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1,
        position_biased_input=False, type_vocab_size=0, pad_token_id=3,
    )  # fmt: skip


def _xlm_roberta(vocabulary: int) -> PretrainedConfig:
    return XLMRobertaConfig(**_sizes(vocabulary) | {"max_position_embeddings": POSITIONS + 2}, pad_token_id=0)


def _camembert(vocabulary: int) -> PretrainedConfig:
    return CamembertConfig(**_sizes(vocabulary) | {"max_position_embeddings": POSITIONS + 2}, pad_token_id=0)


def _mt5(vocabulary: int) -> PretrainedConfig:
    return MT5Config(vocab_size=vocabulary, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=2, num_heads=4)


def _umt5(vocabulary: int) -> PretrainedConfig:
    return UMT5Config(vocab_size=vocabulary, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=2, num_heads=4)


def _mbart(vocabulary: int) -> PretrainedConfig:
    return MBartConfig(
        vocab_size=vocabulary, d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=POSITIONS,
        bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _qwen3_5(vocabulary: int) -> PretrainedConfig:
    from transformers.models.qwen3_5 import Qwen3_5TextConfig

    return Qwen3_5TextConfig(
        **_sizes(vocabulary) | {"hidden_size": 64}, num_key_value_heads=2, head_dim=16, pad_token_id=0, eos_token_id=0,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip


def _qwen3_5_and_images(vocabulary: int) -> PretrainedConfig:
    from transformers.models.qwen3_5 import Qwen3_5Config

    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": 4, "num_position_embeddings": 16}
    text = {**_qwen3_5(vocabulary).to_dict(), "rope_parameters": _MROPE}
    return Qwen3_5Config(text_config=text, vision_config=vision)


_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}


def _gemma4_and_images(vocabulary: int) -> PretrainedConfig:
    from transformers.models.gemma4 import Gemma4Config

    text = _gemma_text(vocabulary) | {"vocab_size_per_layer_input": vocabulary, "hidden_size_per_layer_input": 8}
    vision = _sizes(vocabulary, hidden=16) | {"num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 4}
    vision |= {"patch_size": 4, "position_embedding_size": 16}
    del vision["vocab_size"]
    return Gemma4Config(text_config=text, vision_config=vision)


def _embedding_gemma2(vocabulary: int) -> PretrainedConfig:
    from transformers.models.embedding_gemma2 import EmbeddingGemma2Config

    return EmbeddingGemma2Config(text_config=_gemma_text(vocabulary) | {"embedding_dim": 48})


def _gemma_text(vocabulary: int) -> dict[str, Any]:
    text = _sizes(vocabulary) | {"hidden_size": 64, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}
    return text | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}


BACKBONES: Mapping[str, tuple[Callable[[int], PretrainedConfig], str]] = {
    "bert": (lambda vocabulary: BertConfig(**_sizes(vocabulary)), "wordpiece"),
    "modernbert": (_modernbert, "byte-level"),
    "deberta-v2": (_deberta, "unigram"),
    "t5": (_t5, "unigram-t5"),
    "bart": (_bart, "byte-level-bart"),
    "qwen3": (_qwen3, "byte-level-bare"),
    "roberta": (_roberta, "byte-level-bart"),
    "distilbert": (_distilbert, "wordpiece"),
    "electra": (lambda vocabulary: ElectraConfig(**_sizes(vocabulary), embedding_size=HIDDEN), "wordpiece"),
    "albert": (lambda vocabulary: AlbertConfig(**_sizes(vocabulary), embedding_size=HIDDEN, pad_token_id=0), "unigram"),
    "deberta": (_deberta_v1, "byte-level"),
    "xlm-roberta": (_xlm_roberta, "unigram"),
    "camembert": (_camembert, "unigram"),
    "mt5": (_mt5, "unigram-t5"),
    "umt5": (_umt5, "unigram-t5"),
    "mbart": (_mbart, "byte-level-bart"),
    "qwen3_5_text": (_qwen3_5, "byte-level-bare"),
    "qwen3_5": (_qwen3_5_and_images, "byte-level-bare"),
    "embedding_gemma2": (_embedding_gemma2, "byte-level-bare"),
    "gemma4": (_gemma4_and_images, "byte-level-bare"),
    "mpnet": (lambda vocabulary: MPNetConfig(**_sizes(vocabulary), pad_token_id=1), "wordpiece"),
}

_NORMALIZED = {"normalize_features": True, "logit_scale_init_value": 10.0}
_TEXT = {"extract_text_features": True}
_AVERAGE = {"class_token_pooling": "average"}
_LAST = {"prompt_first": False}
_CROSS = {"scorer_type": "cross-attn", "pooling_strategy": "pass"}
_FUSED = {"architecture_type": "bi-encoder-fused"}
_SEQ2SEQ = {"architecture_type": "encoder-decoder"}
_SEQ2SEQ_CLS = {"architecture_type": "encoder-decoder-cls"}
_DECODER = {"architecture_type": "decoder-kv", "scorer_encoder_num_layers": 1}
_RECURRENT = _DECODER | {"recurrent_steps": 3, "recurrent_halt_threshold": 0.05}
_CALIBRATED = {"use_calibrator": True, "calibrator_hidden_size": 24, "calibrator_use_bias": True}
_IMAGES = _RECURRENT | {"use_calibrator": True, "calibrator_hidden_size": 24, "multimodal": True}

_ALL = (
    Spec("bert-simple"),
    Spec("bert-text-first", flags=_LAST),
    Spec("bert-loose-markers", tokenizer="wordpiece-loose"),
    Spec("bert-average", flags=_AVERAGE),
    Spec("bert-average-text", flags=_AVERAGE | _TEXT | {"pooling_strategy": "avg"} | _NORMALIZED),
    Spec("bert-prompts", flags=_AVERAGE | _TEXT | {"pooling_strategy": "first"} | _NORMALIZED),
    Spec("bert-prompts-segments", flags=_AVERAGE | _TEXT | {"use_segment_embeddings": True}),
    Spec("bert-average-text-first", flags=_AVERAGE | _LAST),
    Spec("bert-average-text-first-extract", flags=_AVERAGE | _LAST | _TEXT),
    Spec("bert-no-class-token", flags={"embed_class_token": False}),
    Spec("bert-no-class-token-average", flags=_AVERAGE | {"embed_class_token": False}),
    Spec("bert-hopfield", flags={"scorer_type": "hopfield"}),
    Spec("bert-weighted-dot", flags={"scorer_type": "weighted-dot"}),
    Spec("bert-layer-1", flags={"encoder_layer_id": 1}),
    Spec("bert-calibrated", flags=_CALIBRATED),
    Spec("bert-lstm", flags={"use_lstm": True, "pooling_strategy": "avg"}),
    Spec("bert-lstm-text", flags=_TEXT | {"use_lstm": True, "pooling_strategy": "last"}),
    Spec("bert-lstm-cross-attn", flags=_CROSS | {"use_lstm": True}),
    *(Spec(f"bert-{pooling}", flags={"pooling_strategy": pooling})
      for pooling in ("last", "avg", "max", "rms", "abs_max", "abs_avg")),
    *(Spec(f"bert-{pooling}-text", flags=_TEXT | {"pooling_strategy": pooling})
      for pooling in ("first", "last", "avg", "max", "rms", "abs_max", "abs_avg")),
    Spec("bert-sum", flags=_NORMALIZED | {"pooling_strategy": "sum"}),
    Spec("bert-sum-text", flags=_NORMALIZED | _TEXT | {"pooling_strategy": "sum"}),
    Spec("modernbert-mlp", "modernbert", {"scorer_type": "mlp"}),
    Spec("modernbert-simple-average", "modernbert", _AVERAGE | _NORMALIZED),
    Spec("modernbert-segments", "modernbert", _AVERAGE | {"scorer_type": "mlp", "use_segment_embeddings": True}),
    Spec("modernbert-layer-1", "modernbert", _NORMALIZED | {"encoder_layer_id": 1}),
    Spec("deberta-simple", "deberta-v2"),
    Spec("deberta-segments", "deberta-v2", _TEXT | {"use_segment_embeddings": True}),
    Spec("deberta-cross-attn", "deberta-v2", _CROSS | _AVERAGE | _TEXT),
    Spec("deberta-cross-attn-whole", "deberta-v2", _CROSS | _NORMALIZED),
    Spec("deberta-calibrated", "deberta-v2", _AVERAGE | _TEXT | _CALIBRATED | {"scorer_type": "mlp"}),
    Spec("modernbert-calibrated", "modernbert", _NORMALIZED | {"use_calibrator": True, "calibrator_hidden_size": 24}),
    Spec("deberta-weighted-dot", "deberta-v2", _LAST | {"scorer_type": "weighted-dot", "pooling_strategy": "avg"}),
    Spec("t5-encoder", "t5", {"pooling_strategy": "avg"}),
    Spec("t5-encoder-text-first", "t5", _LAST | {"pooling_strategy": "last"}, tokenizer="unigram-t5-first"),
    Spec("roberta", "roberta"),
    Spec("distilbert", "distilbert"),
    Spec("electra", "electra"),
    Spec("albert", "albert"),
    Spec("mpnet", "mpnet"),
    Spec("deberta-v1", "deberta"),
    Spec("xlm-roberta", "xlm-roberta"),
    Spec("camembert", "camembert"),
    Spec("mt5-encoder", "mt5"),
    Spec("umt5-encoder", "umt5"),
    Spec("bi-encoder", "bert", {"architecture_type": "bi-encoder"}),
    Spec("bi-encoder-avg", "modernbert", _NORMALIZED | {"architecture_type": "bi-encoder", "pooling_strategy": "avg"}),
    Spec("bi-encoder-calibrated", "bert", _CALIBRATED | {"architecture_type": "bi-encoder", "scorer_type": "mlp"}),
    Spec("fused", "bert", _FUSED),
    Spec("fused-text-first", "deberta-v2", _FUSED | _LAST | {"pooling_strategy": "avg"}),
    Spec("fused-first-blank", "bert", _FUSED | _NORMALIZED, tokenizer="unigram-t5-first"),
    Spec("t5-encoder-decoder", "t5", _SEQ2SEQ | {"pooling_strategy": "avg"}),
    Spec("t5-encoder-decoder-first-blank", "t5", _SEQ2SEQ | _AVERAGE, tokenizer="unigram-t5-first"),
    Spec("t5-encoder-decoder-text", "t5", _SEQ2SEQ | _AVERAGE | _TEXT | _NORMALIZED),
    Spec("t5-encoder-decoder-cross-attn", "t5", _SEQ2SEQ | _CROSS),
    Spec("t5-encoder-decoder-calibrated", "t5", _SEQ2SEQ | _CALIBRATED | _NORMALIZED),
    Spec("bart-encoder-decoder", "bart", _SEQ2SEQ | {"scorer_type": "mlp"}),
    Spec("t5-encoder-decoder-cls", "t5", _SEQ2SEQ_CLS),
    Spec("t5-encoder-decoder-cls-average", "t5", _SEQ2SEQ_CLS | _AVERAGE | _NORMALIZED),
    Spec("bart-encoder-decoder-cls", "bart", _SEQ2SEQ_CLS),
    Spec("mt5-encoder-decoder", "mt5", _SEQ2SEQ),
    Spec("umt5-encoder-decoder", "umt5", _SEQ2SEQ),
    Spec("umt5-encoder-decoder-cls", "umt5", _SEQ2SEQ_CLS),
    Spec("mbart-encoder-decoder", "mbart", _SEQ2SEQ),
    Spec("qwen3-decoder-kv", "qwen3", _DECODER),
    Spec("qwen3.5-decoder-kv", "qwen3_5_text", _DECODER),
    Spec("embedding-gemma2-decoder-kv", "embedding_gemma2", _DECODER),
    Spec("qwen3-decoder-kv-recurrent", "qwen3", _RECURRENT),
    Spec("qwen3-decoder-kv-reading", "qwen3", _RECURRENT | _CALIBRATED | {"recurrent_read_text": True}),
    Spec("qwen3-decoder-kv-longer", "qwen3",
         _RECURRENT | {"recurrent_inference_max_steps": 5, "recurrent_halt_threshold": None}),
    Spec("qwen3-decoder-kv-once", "qwen3", _RECURRENT | {"recurrent_inference": False}),
    Spec("qwen3-decoder-kv-one-label", "qwen3", _RECURRENT | {"problem_type": "single_label_classification"}),
    Spec("embedding-gemma2-decoder-kv-projected", "embedding_gemma2", _DECODER | {"use_embedding_projection": True}),
    Spec("embedding-gemma2-decoder-kv-images", "embedding_gemma2", _IMAGES),
    Spec("qwen3.5-decoder-kv-images", "qwen3_5", _IMAGES),
    Spec("gemma4-decoder-kv-images", "gemma4", _IMAGES),
)  # fmt: skip
# Not every transformers that we support has every backbone.
_MODULES = {name: name for name in ("qwen3_5", "embedding_gemma2", "gemma4")} | {"qwen3_5_text": "qwen3_5"}
SPECS = tuple(
    spec
    for spec in _ALL
    if spec.backbone not in _MODULES or importlib.util.find_spec(f"transformers.models.{_MODULES[spec.backbone]}")
)
BY_NAME: Mapping[str, Spec] = {spec.name: spec for spec in SPECS}
