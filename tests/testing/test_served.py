"""The example's rollout over HTTP, against a real server on this machine."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from nabla.core.budget import Budget
from nabla.core.errors import ConfigError, NablaError, ServerError
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.launch.reasoner import NablaReasoner
from nabla.methods.base import methods
from nabla.models.vocabulary import Vocabulary
from tests.testing.lines import code_lines
from tests.testing.server import serving, writer

EXAMPLE = Path(__file__).parents[2] / "experiments" / "example_plugin"
SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=48)


@pytest.fixture(scope="module")
def served():
    """The class, from outside the package."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        from nabla_example.served import ServedRollout
    finally:
        sys.path.remove(str(EXAMPLE))
    return ServedRollout


@pytest.fixture(scope="module")
def answer(latin_lm):
    """The Latin-square policy behind the server."""
    return writer(latin_lm.model, latin_lm.head.usable)


@pytest.fixture(scope="module")
def vocabulary(latin_lm):
    """All that is known of the model here."""
    return Vocabulary(latin_lm.tokenizer, context_length=latin_lm.vocabulary.context_length)


def solve(engine, method, prompts):
    method.check(engine)
    found = dict((p.id, o) for p, o in engine.run(method.solve, prompts))  # noqa: C402
    for outcome in found.values():
        if isinstance(outcome, NablaError):
            raise outcome
    return [found[p.id] for p in prompts]


def facts(solutions):
    return [
        (s.prompt.id, s.tokens, None if s.reward is None else round(s.reward, 4), s.cost.total.calls)
        for s in solutions
    ]


def test_greedy_over_http_is_greedy_here(served, answer, latin_lm, vocabulary, latin_prompts):
    method, prompts = methods.build("greedy", max_new_tokens=48), latin_prompts[:3]
    here = solve(Engine(latin_lm), method, prompts)
    with serving(answer) as server:
        there = solve(Engine(vocabulary, rollout=served(server.url, "latin")), method, prompts)
    assert [s.tokens for s in there] == [s.tokens for s in here]
    assert all(s.finished for s in there)


def test_best_of_n_needs_no_language_model_and_does_not_depend_on_who_answers_first(
    served, answer, vocabulary, latin_rm, latin_prompts
):
    method, prompts = methods.build("best-of-n", n=3, sampling=SAMPLING), latin_prompts[:3]
    results = []
    for delay, live, connections in ((0.0, 1, 1), (0.2, 64, 64), (0.1, 2, 2)):
        with serving(answer, delay) as server:
            rollout = served(server.url, "latin", connections=connections)
            engine = Engine(vocabulary, latin_rm, rollout=rollout, live=live)
            results.append(facts(solve(engine, method, prompts)))
            assert len(server.arrived) == len(set(server.arrived)) == 9
            assert sorted(server.arrived) == sorted(server.answered)
            if connections != 2:  # of two, the one that came first may be the quicker one every time
                assert (server.arrived == server.answered) == (connections == 1)
            assert server.most <= connections
            assert (server.most > 1) == (connections > 1)
    assert results[0] == results[1] == results[2]
    with serving(answer) as server:
        engine = Engine(vocabulary, latin_rm, rollout=served(server.url, "latin"), seed=1)
        assert facts(solve(engine, method, prompts)) != results[0]


def test_refinement_goes_on_from_what_a_server_wrote(
    served, answer, latin_lm, latin_rm, latin_prompts, vocabulary
):
    arguments = {"dto": {"steps": 2}, "selector": "all", "acceptance": "always", "max_rollouts": 3}
    method = methods.build("nabla-reasoner", sampling=Sampling(1.5, max_new_tokens=48), **arguments)
    with serving(answer) as server:
        rollout = served(server.url, "latin")
        (solution,) = solve(Engine(latin_lm, latin_rm, rollout=rollout), method, latin_prompts[:1])
        going = [r for r in solution.revisions if r.new_token not in vocabulary.eos_ids]
        assert len(server.requests) == 1 + len(going) > 1
        for request in server.requests[1:]:  # a fork: the prompt, a prefix, and room for the rest
            assert len(request["prompt"]) > len(server.requests[0]["prompt"])
        assert len({len(r["prompt"]) + r["max_tokens"] for r in server.requests}) == 1
    assert solution.revisions
    assert solution.cost.total.backward_passes > 0
    with pytest.raises(ConfigError, match="a local language model is needed"):
        method.check(Engine(vocabulary, latin_rm, rollout=rollout))


def test_the_front_door_takes_a_vocabulary(served, answer, vocabulary, latin_rm, latin_prompts, tmp_path):
    with serving(answer) as server:
        reasoner = NablaReasoner.from_pretrained(
            vocabulary,
            latin_rm,
            method="best-of-n",
            n=2,
            sampling=SAMPLING,
            rollout=served(server.url, "latin"),
            accelerator="cpu",
            callbacks=[{"name": "trace", "path": str(tmp_path / "trace.jsonl")}, "stream"],
        )
        solution = reasoner.solve(latin_prompts[0])
    assert solution.reward is not None
    lines = map(json.loads, (tmp_path / "trace.jsonl").read_text().splitlines())
    assert [line["event"] for line in lines].count("rollout") == 2


# -- what is asked, and what is counted ---------------------------------------------------------------


def choice(tokens, log_probs=None):
    known = [-0.5] * len(tokens) if log_probs is None else log_probs
    return {"token_ids": tokens, "logprobs": {"token_logprobs": known}}


def test_a_request_says_all_of_the_sampling(served, vocabulary, latin_prompts):
    sampling = Sampling(temperature=0.3, top_k=7, top_p=0.9, max_new_tokens=11)
    with serving(lambda body: choice([10, 11])) as server:
        for drawn in (sampling, Sampling(max_new_tokens=5)):
            engine = Engine(vocabulary, rollout=served(server.url, "some/model"))
            solve(engine, methods.build("sampling", sampling=drawn), latin_prompts[:1])
        body, plain = server.requests
    assert body["prompt"] == vocabulary.encode(latin_prompts[0]).tolist()
    names = ("model", "temperature", "top_k", "top_p", "max_tokens", "stop_token_ids")
    assert [body[name] for name in names] == ["some/model", 0.3, 7, 0.9, 11, list(vocabulary.eos_ids)]
    assert (plain["top_k"], plain["top_p"], plain["temperature"]) == (-1, 1.0, 0.7)
    assert 0 <= body["seed"] < 2**31


def test_written_tokens_are_counted(served, vocabulary, latin_prompts):
    method = methods.build("self-consistency", n=2, sampling=Sampling(max_new_tokens=8))
    with serving(lambda body: choice([10, 11, 12])) as server:
        for parameters in (0, 5e6):
            engine = Engine(vocabulary, rollout=served(server.url, "m", parameters=parameters))
            (solution,) = solve(engine, method, latin_prompts[:1])
            usage = solution.cost.phases["rollout"]
            assert (usage.decode_steps, usage.tokens, usage.calls) == (6, 6, 6)
            assert usage.flops == 6 * 2 * parameters
            assert usage.seconds > 0
        budget = Budget("calls", (20.0,))
        engine = Engine(vocabulary, rollout=served(server.url, "m"), budgets=[budget])
        (solution,) = solve(engine, method, latin_prompts[:1])
    assert solution.cost.total.calls == 21


def test_log_probabilities_are_those_of_the_server_or_unknown(served, vocabulary, latin_prompts):
    async def method(session):
        seen.extend(await session.rollout(Sampling(max_new_tokens=4)))
        return methods.build("greedy").solution(session, seen[-1])

    for given in ([-0.25, -1.5], None):
        seen: list = []
        reply = choice([10, 11], given) if given else {"token_ids": [10, 11], "logprobs": None}
        with serving(lambda body, reply=reply: reply) as server:
            list(Engine(vocabulary, rollout=served(server.url, "m")).run(method, latin_prompts[:1]))
        if given:
            assert seen[0].log_probs.tolist() == given
        else:
            assert seen[0].log_probs.isnan().all()
        assert seen[0].states is None
        assert seen[0].noise_keys is None


# -- errors ---------------------------------------------------------------------------------------------

RELEASE = threading.Event()


def held(body):
    RELEASE.wait(30)
    return 500


WRONG = {
    "error 500": (lambda body: 500, "500"),
    "no such path": (lambda body: 404, "404"),
    "no JSON": (lambda body: b"{'choices'", "JSONDecodeError"),
    "other JSON": (lambda body: b"[1]", "TypeError"),
    "no choice": (lambda body: b'{"choices": []}', "ValueError"),
    "no ids": (lambda body: {"text": "12"}, "token_ids"),
    "ids that are words": (lambda body: choice(["a"]), "gave no response"),
    "half a list of log-probabilities": (lambda body: choice([10, 11], [-1.0]), "log-probabilities"),
    "a hole in the log-probabilities": (lambda body: choice([10, 11], [-1.0, None]), "gave no response"),
    "nothing written": (lambda body: choice([]), "another number of tokens"),
    "too much written": (lambda body: choice([10] * 100), "another number of tokens"),
    "another vocabulary": (lambda body: choice([50_000]), "does not have"),
    "hung up": (lambda body: None, "RemoteProtocolError"),
    "too slow": (held, "ReadTimeout"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_the_error_of_its_problem_alone(name, served, vocabulary, latin_prompts):
    wrong, message = WRONG[name]
    bad = vocabulary.encode(latin_prompts[1]).tolist()
    method = methods.build("self-consistency", n=2, sampling=Sampling(max_new_tokens=8))
    RELEASE.clear()
    with serving(lambda body: wrong(body) if body["prompt"] == bad else choice([10, 11])) as server:
        engine = Engine(vocabulary, rollout=served(server.url, "m", timeout=1.5 if wrong is held else 60))
        outcomes = [outcome for _, outcome in sorted(
            engine.run(method.solve, latin_prompts[:3]), key=lambda pair: latin_prompts.index(pair[0])
        )]  # fmt: skip
        RELEASE.set()
    assert isinstance(outcomes[1], ServerError)
    assert message in str(outcomes[1])
    assert [o.tokens for o in (outcomes[0], outcomes[2])] == [(10, 11)] * 2


def test_a_server_that_is_not_there(served, vocabulary, latin_prompts):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        engine = Engine(vocabulary, rollout=served(url, "m"))
        with pytest.raises(ServerError, match="ConnectError"):
            solve(engine, methods.build("greedy"), latin_prompts[:1])


def test_closing_a_run_hangs_up(served, vocabulary, latin_prompts):
    """The run ends at once, though the server still holds its answer back."""
    RELEASE.clear()
    bad = vocabulary.encode(latin_prompts[0]).tolist()
    with serving(lambda body: held(body) if body["prompt"] == bad else choice([10])) as server:
        engine = Engine(vocabulary, rollout=served(server.url, "m"))
        found = engine.run(methods.build("sampling").solve, latin_prompts[:2])
        assert next(found)[0].id == latin_prompts[1].id
        found.close()
        assert not any(thread.name == "nabla-rollouts" for thread in threading.enumerate())
        assert not RELEASE.is_set()
        RELEASE.set()


# -- the file --------------------------------------------------------------------------------------------


def test_it_costs_about_forty_lines():
    assert code_lines((EXAMPLE / "nabla_example" / "served.py").read_text()) <= 45


def test_lines_are_counted_without_blanks_comments_docstrings_and_imports():
    source = '''"""A module."""
from __future__ import annotations

import a
from b import (
    c,
)

if TYPE_CHECKING:
    from d import e

# nothing


class F:
    """A class.

    Of two paragraphs.
    """

    x = 1  # code

    def g(
        self,
    ) -> None:
        """A method."""
        return """text

        of three lines"""
'''
    assert code_lines(source) == 1 + 1 + 3 + 3


def test_it_holds_settings_only(served):
    rollout = served("http://127.0.0.1:9/v1", "m")
    assert set(vars(rollout)) == {"url", "model", "parameters", "timeout", "connections"}
    with pytest.raises(ConfigError, match="connections"):
        served("http://127.0.0.1:9/v1", "m", connections=0)
