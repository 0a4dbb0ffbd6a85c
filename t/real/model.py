# Copyright (C) nginx AI gateway authors

"""A language model of random numbers, as small as one can be: model.py FILE.

It knows the bytes as tokens, writes printable ASCII, and makes no sense.  It
takes Debian's python3-gguf, or gguf from PyPI.
"""

import sys

import gguf
import numpy

EMBD, HEADS, FF, CONTEXT = 64, 4, 128, 8192

# ChatML, in which the tools are shown too
TEMPLATE = (
    "{% for tool in tools or [] %}<|im_start|>system\n{{ tool | tojson }}"
    "<|im_end|>\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def byte_names():
    """How byte-level tokenizers spell bytes that cannot be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in seen}
    for n, b in enumerate(b for b in range(256) if b not in names):
        names[b] = chr(256 + n)
    return [names[b] for b in range(256)]


names = byte_names()
merges = [(names[ord(a)], names[ord(b)]) for a, b in ("th", "he", "in", "er")]
tokens = names + [a + b for a, b in merges]
special = ["<|im_start|>", "<|im_end|>"]
first_special = len(tokens)
tokens += special

w = gguf.GGUFWriter(sys.argv[1], "llama")
w.add_name("random")
w.add_context_length(CONTEXT)
w.add_embedding_length(EMBD)
w.add_block_count(1)
w.add_feed_forward_length(FF)
w.add_head_count(HEADS)
w.add_head_count_kv(HEADS)
w.add_rope_dimension_count(EMBD // HEADS)
w.add_layer_norm_rms_eps(1e-5)
w.add_vocab_size(len(tokens))
w.add_file_type(gguf.LlamaFileType.ALL_F32)

w.add_tokenizer_model("gpt2")
w.add_tokenizer_pre("gpt-2")
w.add_token_list(tokens)
w.add_token_types([gguf.TokenType.NORMAL] * first_special
                  + [gguf.TokenType.CONTROL] * len(special))
w.add_token_merges(["%s %s" % m for m in merges])
w.add_bos_token_id(first_special)
w.add_eos_token_id(first_special + 1)
w.add_add_bos_token(False)
w.add_chat_template(TEMPLATE)

rng = numpy.random.default_rng(1)


def add(name, *shape, scale=0.05):
    w.add_tensor(name, (rng.standard_normal(shape) * scale)
                 .astype(numpy.float32))


# one direction is the same for all tokens, so that the last matrix can hold
# some of them down
embd = (rng.standard_normal((len(tokens), EMBD)) * 0.5).astype(numpy.float32)
embd[:, 0] = 4
w.add_tensor("token_embd.weight", embd)

out = (rng.standard_normal((len(tokens), EMBD)) * 0.3).astype(numpy.float32)
out[:, 0] = [0 if 32 <= t < 127 or 256 <= t < first_special
             or t == first_special + 1 else -20 for t in range(len(tokens))]
w.add_tensor("output.weight", out)
w.add_tensor("output_norm.weight", numpy.ones(EMBD, numpy.float32))

for name in "attn_norm", "ffn_norm":
    w.add_tensor("blk.0.%s.weight" % name, numpy.ones(EMBD, numpy.float32))
for name in "attn_q", "attn_k", "attn_v", "attn_output":
    add("blk.0.%s.weight" % name, EMBD, EMBD)
add("blk.0.ffn_gate.weight", FF, EMBD)
add("blk.0.ffn_up.weight", FF, EMBD)
add("blk.0.ffn_down.weight", EMBD, FF)

w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
