"""What passes between the vLLM engine and its worker, with a made-up vllm in place of the real one."""

import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model

from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import open_engine

# Says its prompt backwards, then a 7 for each token that is left; stops behind a stop token.
VLLM = """
from types import SimpleNamespace

class SamplingParams(SimpleNamespace): ...
class TokensPrompt(SimpleNamespace): ...

class LLM:
    def __init__(self, model, max_model_len, **others):
        if "broken" in model:
            raise RuntimeError("no such weights\\nreally not")
        self.llm_engine, self.waiting = self, []
    def add_request(self, name, prompt, params):
        if prompt.prompt_token_ids == [5]:
            raise ValueError("a prompt it does not like")
        self.waiting.append((name, prompt.prompt_token_ids, params))
    def has_unfinished_requests(self):
        return bool(self.waiting)
    def step(self):
        print("words of its own")
        name, ids, params = self.waiting.pop()
        ids = (ids[::-1] + [7] * 100)[: params.max_tokens]
        ends = [k for k, id_ in enumerate(ids) if id_ in params.stop_token_ids]
        ids = ids[: ends[0] + 1] if ends else ids
        return [SimpleNamespace(finished=False), SimpleNamespace(
            finished=True, request_id=name + "-0", outputs=[SimpleNamespace(token_ids=ids)])]
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    (tmp_path / "packages" / "vllm").mkdir(parents=True)
    (tmp_path / "packages" / "vllm" / "__init__.py").write_text(VLLM)
    # The worker only asks torch whether there is a GPU.
    (tmp_path / "packages" / "torch.py").write_text(
        "class cuda:\n    is_available = staticmethod(lambda: True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("VLLM_PYTHON", sys.executable)
    model = make_tiny_model(tmp_path / "model")
    return open_engine(EngineOptions(model_name_or_path=str(model), use_vllm=True, max_model_len=10))


def test_completions_come_back_with_their_request_and_sample(engine: Engine) -> None:
    end = engine.end_ids[0]

    def words(ids: list[int]) -> str:
        return str(engine.tokenizer.decode(ids))

    asked = [Request("a", [50, 51, 52]), Request("b", [60, end, 61]), Request("long", [70] * 8)]
    with engine:
        done = {(one.key, one.sample): one for one in engine.complete(asked, Sampling(4, samples=2))}
        assert len(done) == 6
        assert done["a", 1] == Completion("a", 1, words([52, 51, 50, 7]), 4, False)
        assert done["b", 0] == Completion("b", 0, words([61]), 2, True)
        assert done["long", 0].tokens == 2, "the model has positions for two tokens behind this prompt"
        stop = words([51])
        cut = next(engine.complete([Request("c", [50, 51, 52])], Sampling(4, stop=(stop,))))
        assert (cut.text, cut.stopped) == (words([52, 51, 50, 7]).split(stop)[0], True)


def test_what_vllm_raises_is_said(engine: Engine, tmp_path: Path) -> None:
    with engine, pytest.raises(UserError, match=r"vLLM could not go on with .*ValueError: a prompt it does"):
        list(engine.complete([Request("a", [5])], Sampling(4)))
    broken = make_tiny_model(tmp_path / "broken")
    options = EngineOptions(model_name_or_path=str(broken), use_vllm=True)
    with open_engine(options) as other, pytest.raises(UserError, match="RuntimeError: really not"):
        list(other.complete([Request("a", [50])], Sampling(4)))
