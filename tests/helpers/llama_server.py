"""Serve a model that `tiny_chat` saved with llama.cpp's own server. Runs in an environment of its own.

    python llama_server.py FOLDER

Prints the URL of the API when it answers, and serves until its standard input ends.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

NAMES = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def main() -> None:
    """Write FOLDER/model.gguf and serve it."""
    folder = Path(sys.argv[1])
    file = folder / "model.gguf"
    write(folder, file)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.model_alias = {"tiny"}
    parameters.port = 0
    parameters.n_parallel = 2
    parameters.n_ctx = 2 * json.loads((folder / "model.json").read_text())["config"]["n_positions"]
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}/v1\n")
    sys.stdout.flush()
    sys.stdin.read()


def write(folder: Path, file: Path) -> None:
    """The model in llama.cpp's format, every number as it is."""
    told = json.loads((folder / "model.json").read_text())
    config = told["config"]
    writer = gguf.GGUFWriter(str(file), "gpt2")
    writer.add_name("tiny")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    marks = set(told["marks"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(told["tokens"])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in marks else gguf.TokenType.NORMAL for token in told["tokens"]]
    )
    writer.add_token_merges(told["merges"])
    writer.add_eos_token_id(told["tokens"].index(told["marks"][1]))
    writer.add_add_bos_token(False)
    writer.add_chat_template(told["template"])
    with np.load(folder / "weights.npz") as weights:
        for name in weights.files:
            writer.add_tensor(renamed(name), tensor(name, weights[name]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(name: str) -> str:
    """A weight's name there."""
    name = name.removeprefix("transformer.").replace("lm_head", "output")
    if name.startswith("h."):
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    part, kind = name.rsplit(".", 1)
    return NAMES.get(name) or f"{NAMES.get(part, part)}.{kind}"


def tensor(name: str, value: np.ndarray) -> np.ndarray:
    """GPT-2 keeps the matrices of its layers the other way round."""
    turned = value.T if ".c_" in name and value.ndim == 2 else value
    return np.ascontiguousarray(turned, np.float32)


if __name__ == "__main__":
    main()
