"""PEFT on INT8 models: adapters train, save and reload; what would touch int8 codes is refused and changes nothing."""

import copy
import warnings
from types import ModuleType

import peft
import pytest
import torch
from support import int8_layers, logits, save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_tle_int8
from hf_tle_int8 import TLEInt8Config, TLEInt8Linear, adapters
from hf_tle_int8.errors import AdapterError, UnsupportedTrainingError

TARGETS = ["q_proj", "down_proj"]
# Methods that are served, with what they need to differ from the base model.
SERVED = {
    "lora": peft.LoraConfig(target_modules=TARGETS),
    "lora on all": peft.LoraConfig(target_modules="all-linear"),
    "lora with biases": peft.LoraConfig(target_modules=TARGETS, bias="all"),
    "lora for eva": peft.LoraConfig(target_modules=TARGETS, init_lora_weights="eva"),
    "lora from gaussians": peft.LoraConfig(target_modules=TARGETS, init_lora_weights="gaussian"),
    "alora": peft.LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", alora_invocation_tokens=[1, 2]),
    "rslora": peft.LoraConfig(target_modules=TARGETS, use_rslora=True),
    "adalora": peft.AdaLoraConfig(target_modules=TARGETS, total_step=10),
    "boft": peft.BOFTConfig(target_modules=TARGETS),
    "fourierft": peft.FourierFTConfig(target_modules=TARGETS, n_frequency=16, scaling=1.0),
    "gralora": peft.GraloraConfig(target_modules=TARGETS),
    "ia3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "layer norms": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "loha": peft.LoHaConfig(target_modules=TARGETS),
    "lokr": peft.LoKrConfig(target_modules=TARGETS, r=4),
    "oft": peft.OFTConfig(target_modules=TARGETS, oft_block_size=8),
    "p-tuning": peft.PromptEncoderConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prefix tuning": peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prompt tuning": peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "pvera": peft.PveraConfig(target_modules=TARGETS),
    "randlora": peft.RandLoraConfig(target_modules=TARGETS),
    "road": peft.RoadConfig(target_modules=TARGETS, group_size=16),
    "tokens": peft.TrainableTokensConfig(token_indices=[1, 2, 3]),
    "vera": peft.VeraConfig(target_modules=TARGETS),
    "waveft": peft.WaveFTConfig(target_modules=TARGETS, n_frequency=16),
}
REFUSED = {
    "use_dora=True": peft.LoraConfig(target_modules=TARGETS, use_dora=True),
    "init_lora_weights='pissa'": peft.LoraConfig(target_modules=TARGETS, init_lora_weights="pissa"),
    "init_lora_weights='orthogonal'": peft.LoraConfig(target_modules=TARGETS, init_lora_weights="orthogonal"),
    "target_parameters=": peft.LoraConfig(target_parameters=["q_proj.weight"]),
    "peft_type='HRA'": peft.HRAConfig(target_modules=TARGETS),
    "peft_type='MISS'": peft.MissConfig(target_modules=TARGETS),
    "peft_type='SHIRA'": peft.ShiraConfig(target_modules=TARGETS),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128, "num_hidden_layers": 1}
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), **sizes)


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=TLEInt8Config(), **options)


@pytest.fixture
def model(llama):
    return load(llama)


def codes(model):
    return {name: (layer.weight.clone(), layer.weight_scale.clone()) for name, layer in int8_layers(model).items()}


def assert_same_codes(model, expected):
    layers = int8_layers(model)
    assert len(layers) == len(expected)
    for layer, (weight, scale) in zip(layers.values(), expected.values(), strict=True):
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.weight_scale, scale)


def adapted(model, config):
    """``model`` with an adapter of random values, in eval mode."""
    wrapped = peft.get_peft_model(model, copy.deepcopy(config))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.03)
    return wrapped.eval()


class TestMethods:
    @pytest.mark.parametrize("config", SERVED.values(), ids=SERVED)
    def test_computes_what_it_does_on_float_weights(self, model, config):
        before, plain = codes(model), logits(model)
        wrapped = adapted(model, config)
        output = logits(wrapped)
        wrapped(input_ids=torch.arange(9).reshape(1, 9)).logits.square().mean().backward()
        trained = [name for name, p in wrapped.named_parameters() if p.requires_grad and p.grad is not None]
        assert trained
        assert_same_codes(wrapped, before)
        wrapped.get_base_model().dequantize()
        expected = logits(wrapped)
        assert (output - expected).norm() < 0.03 * expected.norm()
        assert not torch.equal(output[:, -17:], plain)

    # PEFT's LoHa and LoKr ask the weight for its shape in each call.
    @pytest.mark.parametrize("name", sorted(SERVED.keys() - {"loha", "lokr"}))
    def test_calls_find_the_weights_packed(self, model, name):
        wrapped = adapted(model, SERVED[name])
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            for _ in range(10):
                logits(wrapped)
        assert all(layer._packed_times <= 2 for layer in int8_layers(wrapped).values())

    @pytest.mark.parametrize("found", REFUSED)
    def test_what_reads_weights_is_refused_and_leaves_the_model(self, model, found):
        expected = logits(model)
        with pytest.raises(AdapterError, match=rf"{found}.*int8 codes.*or call dequantize\(\) on this model first"):
            peft.get_peft_model(model, copy.deepcopy(REFUSED[found]))
        assert not any("lora" in name for name, _ in model.named_modules())
        assert torch.equal(logits(model), expected)

    def test_float_models_are_none_of_our_business(self, llama):
        float_model = AutoModelForCausalLM.from_pretrained(llama)
        for found in REFUSED.keys() - {"target_parameters="}:
            peft.get_peft_model(copy.deepcopy(float_model), copy.deepcopy(REFUSED[found]))
        wrapped = adapted(float_model, SERVED["lora"])
        expected = logits(wrapped)
        torch.testing.assert_close(logits(wrapped.merge_and_unload()), expected)

    @pytest.mark.parametrize("name", ["v_proj", "self_attn"])
    def test_trained_copies_of_int8_layers_are_refused(self, model, name):
        config = peft.LoraConfig(target_modules=TARGETS, modules_to_save=[name])
        with pytest.raises(AdapterError, match=rf"modules_to_save='{name}'.*modules_to_not_convert=\['{name}'\]"):
            peft.get_peft_model(model, config)

    def test_releases_without_these_classes_are_reported(self):
        with pytest.warns(RuntimeWarning, match="does not know this release of PEFT.*adapters on INT8"):
            adapters.guard(ModuleType("peft.tuners.tuners_utils"))


class TestMerging:
    @pytest.fixture(params=["lora", "ia3", "oft", "road", "waveft"])
    def wrapped(self, model, request):
        return adapted(model, SERVED[request.param])

    @pytest.mark.parametrize("safe", [True, False])
    def test_is_refused_and_changes_nothing(self, wrapped, safe):
        before, expected = codes(wrapped), logits(wrapped)
        (layer, *_) = [m for m in wrapped.modules() if isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer)]
        for merge in (wrapped.merge_adapter, wrapped.merge_and_unload, layer.merge):
            with pytest.raises(AdapterError, match="merging would round it away.*Leave it unmerged"):
                merge(safe_merge=safe)
        assert_same_codes(wrapped, before)
        assert torch.equal(logits(wrapped), expected)

    def test_float_layers_are_not_merged_alone(self, model):
        wrapped = adapted(model, peft.LoraConfig(target_modules=["embed_tokens", "q_proj"]))
        embedding = wrapped.get_base_model().model.embed_tokens
        before = embedding.weight.clone()
        with pytest.raises(AdapterError):
            wrapped.merge_adapter()
        assert not embedding.merged
        assert torch.equal(embedding.weight, before)

    def test_works_after_dequantize(self, wrapped):
        expected = logits(wrapped)
        wrapped.get_base_model().dequantize()
        merged = wrapped.merge_and_unload()
        assert not int8_layers(merged)
        assert (logits(merged) - expected).norm() < 0.02 * expected.norm()

    def test_what_is_left_when_the_result_is_quantized_again(self, stories, stories_path, tmp_path):
        model, ids = stories
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear"))
        train(wrapped, ids, 8, lr=1e-4)
        wrapped.eval().save_pretrained(tmp_path)
        with wrapped.disable_adapter():
            before = loss(wrapped, ids)
        gain = before - loss(wrapped, ids)
        original = AutoModelForCausalLM.from_pretrained(stories_path)
        merged = {
            "the original": peft.PeftModel.from_pretrained(original, tmp_path).merge_and_unload(),
            "dequantized": wrapped.get_base_model().dequantize() and wrapped.merge_and_unload(),
        }
        for converted in merged.values():
            hf_tle_int8.quantize_and_replace_linears(converted, skip=["lm_head"])
        assert before - loss(merged["the original"], ids) > 0.8 * gain > 0.02
        assert before - loss(merged["dequantized"], ids) < 0.2 * gain

    def test_layers_that_were_merged_in_float_are_not_unmerged_in_int8(self, llama):
        wrapped = adapted(AutoModelForCausalLM.from_pretrained(llama), SERVED["lora"])
        wrapped.merge_adapter()
        hf_tle_int8.quantize_and_replace_linears(wrapped.get_base_model(), skip=["lm_head"])
        before = codes(wrapped)
        with pytest.raises(AdapterError), wrapped.disable_adapter():
            logits(wrapped)
        assert_same_codes(wrapped, before)

    def test_a_float_model_with_an_adapter_becomes_int8_beneath_it(self, llama):
        wrapped = adapted(AutoModelForCausalLM.from_pretrained(llama), SERVED["lora on all"])
        expected = logits(wrapped)
        trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        assert hf_tle_int8.quantize_and_replace_linears(wrapped, skip=["lm_head"]) == 7
        assert all(name.endswith("base_layer") for name in int8_layers(wrapped))
        assert {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad} >= trained
        assert (logits(wrapped) - expected).norm() < 0.05 * expected.norm()

    def test_unloading_gives_the_base_model_back(self, llama, wrapped):
        assert torch.equal(logits(wrapped.unload()), logits(load(llama)))


class TestSaving:
    def test_reloads_bit_for_bit(self, llama, model, tmp_path):
        config = peft.LoraConfig(target_modules="all-linear", modules_to_save=["lm_head"])
        wrapped = adapted(model, config)
        expected = logits(wrapped)
        wrapped.save_pretrained(tmp_path)
        assert not torch.equal(logits(load(llama)), expected)
        again = peft.PeftModel.from_pretrained(load(llama), tmp_path)
        assert torch.equal(logits(again), expected)
        assert not any(isinstance(m, TLEInt8Linear) for m in again.get_base_model().lm_head.modules())

    def test_through_transformers_own_integration(self, llama, model, tmp_path):
        model.add_adapter(copy.deepcopy(SERVED["lora on all"]))
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(torch.randn_like(parameter) * 0.05)
        expected = logits(model.eval())
        model.save_pretrained(tmp_path / "adapter")
        again = load(llama)
        again.load_adapter(tmp_path / "adapter")
        assert torch.equal(logits(again), expected)
        again.disable_adapters()
        assert torch.equal(logits(again), logits(load(llama)))
        with pytest.raises(AdapterError, match="use_dora=True"):
            load(llama).add_adapter(copy.deepcopy(REFUSED["use_dora=True"]))

    def test_a_float_adapter_fits(self, llama, model, tmp_path):
        wrapped = adapted(AutoModelForCausalLM.from_pretrained(llama), SERVED["lora"])
        wrapped.save_pretrained(tmp_path)
        expected = logits(wrapped)
        output = logits(peft.PeftModel.from_pretrained(model, tmp_path))
        assert (output - expected).norm() < 0.05 * expected.norm()


def train(model, ids, steps, lr=3e-3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def loss(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


@pytest.fixture
def stories(stories_path):
    """A trained model in INT8, and text to train on."""
    text = (stories_path / "eval.txt").read_text()[:700]
    ids = AutoTokenizer.from_pretrained(stories_path)(text, return_tensors="pt").input_ids
    return load(stories_path), ids[:, : 8 * (ids.shape[1] // 8)].reshape(8, -1)


class TestTraining:
    def test_the_loss_falls_on_a_trained_model(self, stories):
        model, ids = stories
        before = codes(model)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear", r=8))
        losses = train(wrapped, ids, 20)
        assert losses[-1] < 0.3 * losses[0]
        assert_same_codes(wrapped, before)

    def test_prepared_and_checkpointed_it_takes_the_same_steps(self, llama):
        ids, runs = torch.arange(32).reshape(2, 16), []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = peft.prepare_model_for_kbit_training(load(llama, dtype=torch.bfloat16))
            assert all(layer.weight.dtype == torch.int8 for layer in int8_layers(model).values())
            assert model.lm_head.weight.dtype == torch.float32
            wrapped = peft.get_peft_model(model, copy.deepcopy(SERVED["lora on all"]))
            if checkpointing:
                wrapped.gradient_checkpointing_enable()
                wrapped.enable_input_require_grads()
                assert wrapped.is_gradient_checkpointing
            wrapped.train()
            runs.append(train(wrapped, ids, 4))
        assert runs[0] == runs[1]
        assert runs[0][-1] < runs[0][0]

    def test_nothing_of_the_base_learns(self, model):
        wrapped = peft.get_peft_model(model, copy.deepcopy(SERVED["lora"]))
        before = [parameter.requires_grad for parameter in wrapped.parameters()]
        with pytest.raises(UnsupportedTrainingError, match="with INT8 layers.*no gradient"):
            wrapped.requires_grad_(True)
        assert [parameter.requires_grad for parameter in wrapped.parameters()] == before


def test_classes_that_exist_already_are_guarded_once():
    class BaseTuner:
        def inject_adapter(self): ...
        def _check_tied_modules(self): ...
        def _check_merge_allowed(self): ...

    class BaseTunerLayer:
        def get_base_layer(self):
            return TLEInt8Linear(torch.ones(2, 2, dtype=torch.int8), 1.0)

    class Early(BaseTunerLayer):
        def merge(self): ...

    tuners = ModuleType("peft.tuners.tuners_utils")
    tuners.BaseTuner, tuners.BaseTunerLayer = BaseTuner, BaseTunerLayer
    adapters.guard(tuners)
    first = Early.merge
    adapters.guard(tuners)

    class Late(Early):
        def unmerge(self): ...

    assert Early.merge is first
    for method in (Early().merge, Late().unmerge):
        with pytest.raises(AdapterError):
            method()
