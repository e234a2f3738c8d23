"""Every configuration key: its default, its unit, its bounds and its meaning.

A duration is a number and a unit: "300 steps", "2e7 tokens", "1e5 examples", "2 epochs", "5 %" (of
the whole run) or "1e13 flops" (counted by `train.flops_convention`). `launch/trial/resolve.py`
turns durations and the zeros that mean "derive it" into numbers, and refuses values out of bounds.

`model.family`, `objective.name` and `data.kind` choose which keys their sections have. A family,
objective or kind that is not listed here has the fields of its Config as its keys.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.sections import policy, post_training
from configs.sections.key import Key


def get_config(
    family: str = "decoder", objective: str = "next_token", kind: str = "text"
) -> ConfigDict:
    """The defaults: a 0.8M-parameter GPT on the bytes of the Python standard library.

    A section whose choice is not listed here has only the choice, and accepts any key until the
    file that registers it is imported."""
    config = ConfigDict(all_defaults(family, objective, kind)).lock()
    chosen = (config.model, family, MODELS), (config.objective, objective, OBJECTIVES)
    for section, choice, listed in (*chosen, (config.data, kind, DATA)):
        if choice not in listed:
            section.unlock()
    return config


def all_defaults(
    family: str = "decoder", objective: str = "next_token", kind: str = "text"
) -> dict[str, Any]:
    """The content of `get_config`."""
    sections = sections_of(family, objective, kind).items()
    return defaults(TRIAL) | {name: defaults(keys) for name, keys in sections}


def sections_of(family: str, objective: str, kind: str) -> dict[str, dict]:
    """The sections of a config; keys with bounds are Keys. A choice that is not listed here has its
    other keys from the fields of its Config, once its file is imported."""
    return dict(
        model=dict(family=family) | MODELS.get(family, dict)(),
        objective=dict(name=objective) | OBJECTIVES.get(objective, dict)(),
        data=dict(kind=kind) | DATA.get(kind, dict)(),
        **{name: keys() for name, keys in SECTIONS.items()},
    )


def bounds(objective: str = "next_token", kind: str = "text") -> dict[str, Key]:
    """The bounds of dotted keys outside the section `model`; each family checks its keys."""
    found = {name: key for name, key in TRIAL.items() if isinstance(key, Key)}
    sections = {name: keys() for name, keys in SECTIONS.items()}
    sections |= {"objective": OBJECTIVES.get(objective, dict)(), "data": DATA.get(kind, dict)()}
    for name, keys in sections.items():
        found |= {f"{name}.{key}": v for key, v in keys.items() if isinstance(v, Key)}
    return found


def defaults(keys: dict) -> dict[str, Any]:
    """Keys with their defaults, without bounds."""
    return {name: key.default if isinstance(key, Key) else key for name, key in keys.items()}


TRIAL = dict(
    name="trial",  # readable prefix of the trial's id
    seed=Key(0, least=0, below=2**32),  # of initialisation, data order and dropout
    holdout=False,  # True: predicted from the other trials before it starts, never fitted
    # Python files that register a family, an objective, an optimiser, … of your own; --import=FILE
    # adds one (docs/extending.md).
    imports=(),
    imports_hash=(),  # of their bytes, filled in where they are executed; part of the id
)


def decoder() -> dict:
    """A decoder-only Transformer, `model/transformer/config.py`; its zeros are derived."""
    return dict(
        vocab_size=0,  # tokens; 0: the tokenizer's
        context_length=128,  # tokens of one training sequence, and of the position table
        n_layers=4,
        d_model=128,
        n_heads=4,  # query heads
        n_kv_heads=0,  # key/value heads; 0: n_heads (MHA); 1: MQA; between: GQA
        head_dim=0,  # 0: d_model / n_heads
        d_ff=0,  # width of the MLP; 0: 4 d_model, or 8/3 d_model rounded up to 8 when gated
        norm="layernorm",  # layernorm | rmsnorm
        norm_eps=1e-5,
        norm_bias=True,  # of layernorm
        norm_offset=False,  # True: rmsnorm multiplies by 1 + its parameter (Gemma)
        norm_position="pre",  # pre | post | both (Gemma 2) | parallel (PaLM): see model.Block
        qk_norm=False,  # True: queries and keys are normalised, each head by itself
        positions="learned",  # learned | sinusoidal | rotary | alibi | none
        rope_theta=10_000.0,  # the slowest pair of dimensions turns once in about 2π theta tokens
        rope_theta_local=0.0,  # of layers with a window, which are never scaled; 0: rope_theta
        rope_layout="half",  # half: pairs (i, i + C/2) | interleaved: pairs (2i, 2i + 1)
        rope_fraction=1.0,  # share of a head's dimensions that rotate
        rope_scaling="none",  # none | linear | llama3 | longrope: to contexts beyond the original
        rope_factor=1.0,  # of linear and llama3: how many times longer
        rope_original_context=0,  # of llama3 and longrope: tokens
        rope_low_frequency=1.0,  # of llama3: pairs with fewer turns per original context are slowed
        rope_high_frequency=4.0,  # of llama3: pairs with more turns are left alone
        rope_short_factors=(),  # of longrope: a divisor for each pair, within the original context
        rope_long_factors=(),  # of longrope: the same beyond it
        window=0,  # tokens that a local layer's query sees, itself included; 0: no layer is local
        window_pattern="L",  # L local, G global, repeated over the layers: "LG" (Gemma 2)
        query_scale=0.0,  # what q·k is multiplied by; 0: 1 / sqrt(head_dim)
        attention_softcap=0.0,  # c: scores become c tanh(scores / c); 0: none
        logit_softcap=0.0,  # the same for the logits
        logit_scale=1.0,  # what the logits are multiplied by
        activation="gelu_tanh",  # gelu (exact) | gelu_tanh | silu | relu | relu2 (squared)
        gated=False,  # True: act(x W_gate) * (x W_up), i.e. GEGLU or SwiGLU
        attention_bias=True,  # of queries, keys, values and, with out_bias, the output projection
        out_bias=True,
        mlp_bias=True,
        embedding_scale=False,  # True: embeddings are multiplied by sqrt(d_model)
        tie_embeddings=True,  # the head is the transposed token embedding
        dropout=0.0,  # probability; on embeddings and on each residual branch
        init="gpt2",  # gpt2: N(0, init_std), residual outputs / sqrt(2L) | normal | fan_in
        init_std=0.02,
        embedding_std=0.0,  # of the token embedding; 0: init_std
        dtype="float32",  # float32 | bfloat16: of the computation; parameters are always float32
        attention="auto",  # auto | xla | splash (TPU) | cudnn (GPU) | ring: see model/kernels/
        # standard | mup | completep: how initial values, multipliers, learning rates, decay and eps
        # scale with the width (completep: and the depth). All three are equal at the base shape.
        parametrization="standard",
        base_width=0,  # d_model of the base shape; ignored by standard
        base_head_dim=0,  # head_dim of the base shape; ignored by standard
        base_depth=0,  # n_layers of the base shape; ignored by all but completep
        n_classes=0,  # of a classification head; 0: as many as labelled data have, otherwise none
        scan_layers=False,  # True: one compiled block in a loop; compiles faster, slower on CPU
        # What a block keeps for its backward pass; it recomputes the rest: none (all is kept) |
        # dots_attention | dots (the products' outputs) | projections (queries, keys, values) |
        # attention (its output) | full (the block's input alone) | offload (to host memory)
        remat="none",
    )


def ngram() -> dict:
    """An n-gram model, counted in one pass: `model/counted/ngram.py`."""
    return dict(
        vocab_size=0,  # tokens; 0: the tokenizer's
        context_length=128,  # tokens of one scored sequence; contexts may begin before it
        order=5,  # tokens of the longest n-gram
        # modified_kneser_ney | kneser_ney | absolute | witten_bell | add_k
        smoothing="modified_kneser_ney",
        k=1.0,  # of add_k: added to the count of each token
        # Of kneser_ney and absolute: subtracted from each count; 0: estimated for each order.
        discount=0.0,
    )


def next_token() -> dict:
    """Cross-entropy of the next token. Its weights are in the section `train`."""
    return {}


def exact_match() -> dict:
    """The same, measured by whole sentences too."""
    return {}


def text() -> dict:
    """Running text, and how it becomes tokens."""
    return dict(
        # stdlib | FILE | FOLDER | *.jsonl[.gz|.zst] | *.parquet | hf:NAME | synthetic[:KEY=VALUE…]
        corpora=("stdlib",),
        weights=(1.0,),  # share of the tokens drawn from each corpus
        text_key="text",  # field of a jsonl or parquet row that holds the text
        # bytes | chars | bpe | unigram | words | lowercase_words | a SentencePiece .model file |
        # a tokenizer.json
        tokenizer="bytes",
        vocab_size=0,  # tokens to train bpe or unigram with, or of words; 0: all words
        # Bytes of text, of a uniform sample of the documents, to train bpe or unigram on; 0: 2^24
        # and 2^22
        tokenizer_sample=Key(0, least=0),
        validation=0.05,  # share of the documents, chosen by a hash of their content
        # Corpora to validate on, one for each of `corpora`; then `validation` is not used.
        held_out=(),
        cache="cache",  # folder of the token shards
        max_bytes=0,  # text read from each corpus, in bytes; 0: all
        max_tokens=Key(0, least=0),  # training tokens that a counted model counts; 0: all
        hash="",  # of the dataset, filled in by `resolve`; give it to insist on one
    )


def text_in_rows() -> dict:
    """The same, and how its tokens become rows: `data/kinds/text.py`."""
    return text() | dict(
        rows="windows",  # windows: wherever documents end | packed: whole documents, by best fit
    )


def spans() -> dict:
    """Running text with spans cut out, for encoder–decoders: `data/kinds/spans.py`."""
    return text() | dict(
        corruption=Key(0.15, least=0.01, below=0.91),  # share of the tokens that are cut
        mean_span=Key(3.0, least=1),  # tokens of a span, on average
        sentinels=Key(100, least=1),  # ids that mark spans, after those of the tokenizer
    )


def masked_text() -> dict:
    """Running text with masked tokens, for encoders: `data/kinds/masked_text.py`."""
    return text() | dict(masked=Key(0.15, least=0.001, below=1))  # share of the tokens


def unlearning() -> dict:
    """Statements to be forgotten, beside running text to keep: `data/kinds/unlearning/`."""
    return text() | dict(
        # *.jsonl of {"prompt", "answer"} | world:forget=0.1[:KEY=VALUE…]
        forget=("world:forget=0.1",),
        forget_share=0.5,  # of the rows of a batch
        corpora=("world:forget=0.1:part=retain",),  # what is kept
    )


def word_pairs() -> dict:
    """Text as pairs of words, for word2vec: `data/kinds/words/word_pairs.py`."""
    return text() | dict(
        subsample=Key(
            1e-3, least=0
        ),  # share of the text above which a word is thinned out; 0: none
        noise_power=Key(0.75, least=0),  # noise words are drawn by their counts to this power
    )


def cooccurrence() -> dict:
    """The words around each word, counted, for GloVe: `data/kinds/words/cooccurrence.py`."""
    return text() | dict(
        window=Key(10, least=1),  # words between which a pair is counted, by 1 / distance
        entries=Key(1024, least=1),  # entries of the matrix in one row of a batch
        held_out_pairs=Key(0.05, least=0, below=1),  # share of pairs of words, for the evaluation
    )


def documents() -> dict:
    """Text as whole documents, for LSA: `data/kinds/words/documents.py`."""
    return text() | dict(
        document_words=Key(0, least=0),  # words after which a document is cut; 0: nowhere
    )


def train() -> dict:
    """One optimiser step, and how many of them."""
    return dict(
        batch_size=Key(32, least=1),  # sequences of one optimiser step, over all devices
        batch_per_device=Key(
            0, least=0
        ),  # sequences; > 0: batch_size is this times mesh.data times mesh.fsdp
        # Micro-batches of one step, whose gradients are averaged. On a CPU, micro-batches whose
        # activations fit its cache are fastest.
        accumulation=Key(1, least=1),
        duration="5e6 tokens",
        # A run, or a folder of Hugging Face weights: training starts from its parameters with a
        # fresh optimiser and takes the section `model` from it.
        init_from="",
        init_hash="",  # of those parameters, filled in by `resolve`
        flops_convention="6nd",  # 6nd | kaplan | chinchilla | palm: what a duration in flops means
        chunk=Key(0, least=0),  # steps of one jitted call; 0: about a quarter second of work
        z_loss=Key(0.0, least=0),  # weight of log(Z)^2, PaLM section 5
        label_smoothing=Key(0.0, least=0, below=1),  # probability mass spread over the vocabulary
        loss_chunk=Key(0, least=0),  # tokens of a sequence whose logits exist at once; 0: all
        max_loss_ratio=Key(3.0, least=1),  # a spike: a loss above this times its running median
        on_spike="stop",  # stop | skip | rewind: what follows a spike, docs/clusters.md
        max_spikes=Key(5, least=1),  # that are skipped or rewound; after one more the run diverged
    )


def adapter() -> dict:
    """A small change of frozen weights, trained in their place: `model/adapters/`."""
    return dict(
        name="",  # lora, of the weights that train.init_from names; "": all parameters are trained
        rank=Key(8, least=1),  # columns of A and rows of B
        alpha=Key(16.0, least=0),  # the change is alpha / rank times A B
        dropout=Key(0.0, least=0, below=1),  # probability; on the inputs of A
        targets="",  # a regex over the paths of kernels, "attention/(query|value)"; "": all blocks
        rslora=False,  # True: alpha / sqrt(rank) instead
        dora=False,  # True: the norms of the outputs' weights are trained apart (DoRA)
        base_dtype="",  # nf4 (QLoRA) | int8: how the frozen kernels are stored; "": as model.dtype
    )


def optimizer() -> dict:
    """How a gradient becomes an update."""
    return dict(
        name="adamw",  # adamw | adafactor | lion | sgd | muon
        learning_rate=Key(1e-3, least=0),  # the schedule's peak
        b1=Key(
            0.9, least=0, below=1
        ),  # first moment; momentum of sgd and muon; unused by adafactor
        b2=Key(0.95, least=0, below=1),  # second moment; unused by adafactor and sgd
        eps=Key(1e-8, least=0),  # of adamw and muon
        weight_decay=Key(0.1, least=0),  # times the learning rate, where DECAY_RULES says
        clip_norm=Key(1.0, least=0),  # global norm of the gradient; 0: no clipping
        moments="float32",  # float32 | bfloat16: how they are stored between steps
        # True: moments are in the host's memory between updates, if the platform has such memory
        offload=False,
    )


def schedule() -> dict:
    """The learning rate over the run."""
    return dict(
        name="cosine",  # constant | linear | cosine | inverse_sqrt | wsd
        warmup="2 %",  # duration of the linear rise from 0
        decay="20 %",  # duration of the final fall of wsd
        final=Key(0.1, least=0),  # learning rate at the last step, as a share of the peak
    )


def evaluation() -> dict:
    """The validation loss."""
    return dict(
        every="10 %",  # duration between evaluations; there is always one after the last step
        sequences=Key(256, least=2),  # of the fixed validation set (fewer if the split is smaller)
        batch_size=Key(32, least=1),  # sequences of one forward pass
    )


def checkpoint() -> dict:
    """What is kept of the training state."""
    return dict(
        every="20 %",  # duration between checkpoints; there is always one after the last step
        keep_last=Key(2, least=1),
        keep_best=Key(1, least=0),  # by eval loss
        keep_at=(),  # durations at which a checkpoint is made and kept, whatever keep_last says
        trunk="",  # folder of a wsd run to branch from, which differs only in its length
        stop_at="",  # duration after which it saves and ends as "stopped"; "": its full length
        share_trunks=False,  # True: wsd trials of a sweep that differ only in length share steps
    )


def log() -> dict:
    """What is recorded of the run."""
    return dict(
        every="2 %",  # duration between training rows of metrics.jsonl
        tensorboard=True,  # also write TensorBoard event files
        samples="",  # duration between samples of text, which go to samples.jsonl; "": none
        prompts=("",),  # texts to continue or, by data.template, to answer; "": a new document
        sample_tokens=Key(64, least=1),  # of each sample, at most
        peak_flops=Key(
            0.0, least=0
        ),  # FLOP/s of one device, for MFU; 0: looked up by device kind, else unknown
        # After this many seconds without a finished chunk of steps (compilation included) a run
        # prints its stacks and exits with 42; 0: never.
        stall_timeout=Key(1800.0, least=0),
    )


def mesh() -> dict:
    """Devices along each axis of `train/parallel/mesh.py`; one may be -1 (the rest)."""
    return dict(data=1, fsdp=-1, tensor=1, sequence=1)


MODELS = {"decoder": decoder, "ngram": ngram}
OBJECTIVES = {
    "next_token": next_token,
    "masked": dict,
    "classify": dict,
    "tag": dict,
    "exact_match": exact_match,
    **policy.OBJECTIVES,
}
DATA = {
    "text": text_in_rows,
    "spans": spans,
    "masked_text": masked_text,
    "word_pairs": word_pairs,
    "cooccurrence": cooccurrence,
    "documents": documents,
    "unlearning": unlearning,
    **post_training.DATA,
}
SECTIONS = dict(
    train=train,
    adapter=adapter,
    optimizer=optimizer,
    schedule=schedule,
    eval=evaluation,
    checkpoint=checkpoint,
    log=log,
    mesh=mesh,
)
