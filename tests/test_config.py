"""Configuration: frozen, checked, merged."""

from __future__ import annotations

import pickle

import pytest

from cyllama import GenerationConfig, ModelConfig
from cyllama.config import OTHER_NAMES
from cyllama.llama.llama_cpp import LlamaContextParams, LlamaModelParams
from cyllama.options import GenerationOptions


def test_defaults_of_models_and_contexts_are_llama_cpps():
    config, model, context = ModelConfig(), LlamaModelParams(), LlamaContextParams()
    assert config.split_mode.upper() == model.split_mode.name
    assert config.load_mode.upper() == model.load_mode.name
    assert config.n_ubatch == context.n_ubatch
    assert config.type_k.upper() == context.type_k.name
    assert config.type_v.upper() == context.type_v.name
    assert config.flash_attn.upper() == context.flash_attn_type.name
    assert GenerationConfig().n_batch == context.n_batch
    for name in ("offload_kqv", "op_offload", "rope_freq_base", "rope_freq_scale"):
        assert getattr(config, name) == getattr(context, name)
    for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx"):
        assert getattr(config, name) == getattr(context, name)


def test_merge_replaces_and_checks():
    config = GenerationConfig(temperature=0, seed=3)
    assert config.merge(seed=4) == GenerationConfig(temperature=0, seed=4)
    assert config.merge() is config
    with pytest.raises(ValueError, match="temperature"):
        config.merge(temperature=-1)
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        config.merge(max_token=5)


def test_one_stop_sequence_need_not_be_in_a_list():
    assert GenerationConfig(stop_sequences="###").stop_sequences == ("###",)
    assert GenerationConfig(stop_sequences=["a", "b"]).stop_sequences == ("a", "b")


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(GenerationConfig(temperature=0, max_tokens=5)) == "GenerationConfig(max_tokens=5, temperature=0.0)"


def test_configs_can_be_pickled_compared_and_dumped():
    config = GenerationConfig(temperature=0.5, logit_bias={3: 1.0})
    assert pickle.loads(pickle.dumps(config)) == config
    assert GenerationConfig(**config.model_dump()) == config
    assert GenerationConfig.model_validate_json(config.model_dump_json()) == config


def test_every_option_is_documented():
    for config in (GenerationConfig, ModelConfig):
        assert config.__doc__ is not None
        for name in config.model_fields:
            assert f"\n        {name}: " in config.__doc__ or f"\n    {name}: " in config.__doc__, name


def test_type_checkers_and_editors_know_every_option():
    assert set(GenerationOptions.__annotations__) == {*GenerationConfig.model_fields, *OTHER_NAMES}
