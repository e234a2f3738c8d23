"""Keys of config.json that do not change what a model computes, with the reasons."""

REASONS = {
    "says where the checkpoint comes from and which code wrote it": (
        *("_name_or_path", "_commit_hash", "architectures", "auto_map", "model_type"),
        *("transformers_version", "transformers.js_config", "tokenizer_class", "backend"),
        *("unsloth_fixed", "unsloth_version", "finetuning_task", "is_llama_config"),
    ),
    "is an id or a limit of the tokenizer; the model reads ids only": (
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"),
        *("mask_token_id", "cls_token_id", "decoder_start_token_id", "n_special", "prefix"),
        *("predict_special_tokens", "max_sequence_length", "model_max_length", "n_ctx"),
    ),
    "decides what a call returns or caches": (
        *("use_cache", "cache_implementation", "return_dict", "output_attentions"),
        *("output_hidden_states", "output_past", "output_scores", "return_dict_in_generate"),
        *("torchscript", "use_return_dict"),
    ),
    "decides how attention or the MLP is computed, up to rounding": (
        *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
        *("reorder_and_upcast_attn", "chunk_size_feed_forward", "pretraining_tp", "use_flash_attn"),
        *("use_bfloat16", "full_attn_mod", "interpolate_factor"),
    ),
    "acts in training only": (
        *("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "embedding_dropout"),
        *("residual_dropout", "layerdrop", "gradient_checkpointing", "neftune_noise_alpha"),
        *("label_smoothing", "tf_legacy_loss", "z_loss_coefficient"),
    ),
    "is a default of text generation, which isoflop takes from flags": (
        *("max_length", "min_length", "max_new_tokens", "do_sample", "temperature", "top_k"),
        *("top_p", "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty"),
        *("num_beams", "num_beam_groups", "num_return_sequences", "early_stopping"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
        *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id"),
        *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
    ),
    "belongs to heads of other tasks": (
        *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "pool_method"),
        *("task_specific_params", "summary_type", "summary_use_proj", "summary_activation"),
        *("summary_proj_to_labels", "summary_first_dropout", "classifier_dropout"),
        *("is_encoder_decoder", "is_decoder"),
    ),
}
INERT = {key: reason for reason, keys in REASONS.items() for key in keys}
"""{key: why it has no effect, for any value}."""

# Keys that have no effect if they have this value, which turns the feature off.
SWITCHED_OFF = {
    "rope_interleaved": False, "pruned_heads": {}, "add_cross_attention": False,
    "tie_encoder_decoder": False, "cross_attention_hidden_size": None, "use_mrope": False,
    "use_qk_norm": False, "use_bidirectional_attention": False, "lm_head_bias": False,
}  # fmt: skip
