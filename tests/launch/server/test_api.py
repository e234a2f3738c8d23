"""Tests of the API with OpenAI's own client, against a server on the loopback address."""

import asyncio
import http.client
import json
import re
import threading
import time
import urllib.parse
from types import SimpleNamespace

import pytest

openai = pytest.importorskip("openai")

from launch.chat.request import CANCELLED  # noqa: E402
from launch.server import app  # noqa: E402
from model.generation import sample  # noqa: E402
from model.generation.samplers import Sampler  # noqa: E402
from tests.launch.server.conftest import SLOTS, WAITING, post, running  # noqa: E402

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "naïve 中"}]
CALM = dict(model="tiny", temperature=0.0, max_tokens=9)


def client_of(server, token="none"):
    return openai.OpenAI(base_url=f"{server.address}v1", api_key=token, max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def client(server):
    return client_of(server)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "isoflop"
    with pytest.raises(openai.NotFoundError, match="'other' does not exist; use 'tiny'"):
        client.models.retrieve("other")


def test_completions_are_what_sample_draws(client, opened):
    model = opened.model
    how = Sampler(temperature=0.8, top_p=0.9, vocab_size=256, stop=(255,))
    prompts = [list(b"ab")]
    expected = sample.sample(model.params, model.cfg, prompts, 9, how, n=2, seed=4, top=2)
    found = client.completions.create(
        model="tiny", prompt="ab", temperature=0.8, top_p=0.9, max_tokens=9, n=2, seed=4, logprobs=2
    )
    for row, choice in enumerate(found.choices):
        count = int(expected.lengths_B[row])
        tokens = expected.tokens_BN[row, :count].tolist()
        ended = tokens[-1] == 255
        assert choice.text == model.tokenizer.decode(tokens)
        assert choice.finish_reason == ("stop" if ended else "length")
        told = choice.logprobs.token_logprobs
        assert told == pytest.approx(expected.logprobs_BN[row, : count - ended].tolist(), abs=1e-4)
        assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)
        assert choice.logprobs.text_offset[0] == 0
    usage = found.usage
    assert usage.prompt_tokens == 2 and usage.completion_tokens == expected.lengths_B.sum()
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_several_prompts_and_lists_of_tokens(client):
    texts = client.completions.create(**CALM, prompt=["ab", "cde"])
    tokens = client.completions.create(**CALM, prompt=[list(b"ab"), list(b"cde")])
    one = client.completions.create(**CALM, prompt=list(b"cde"))
    assert [c.text for c in texts.choices] == [c.text for c in tokens.choices]
    assert texts.choices[1].text == one.choices[0].text != texts.choices[0].text
    assert texts.usage.prompt_tokens == 5


def test_a_chat_goes_through_the_template(client, opened):
    found = client.chat.completions.create(
        messages=ASK, **CALM, logprobs=True, top_logprobs=3, seed=1
    )
    prompt = opened.turns.prompt(ASK)
    assert bytes(prompt).decode() == "Be brief.\nUSER: naïve 中\nASSISTANT:"
    same = client.completions.create(**CALM, prompt=prompt)
    choice = found.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == same.choices[0].text.removeprefix(" ")
    content = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode("utf-8", "replace") == (
        same.choices[0].text
    )
    assert all(token.top_logprobs[0].logprob >= token.logprob for token in content)
    assert found.usage.prompt_tokens == len(prompt)
    parts = [ASK[0], {"role": "user", "content": [{"type": "text", "text": ASK[1]["content"]}]}]
    again = client.chat.completions.create(messages=parts, **CALM)
    assert again.choices[0].message.content == choice.message.content


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_is_the_whole_answer_in_pieces(client, n):
    how = dict(
        messages=ASK, model="tiny", max_tokens=30, n=n, seed=3, logprobs=True, top_logprobs=1
    )
    whole = client.chat.completions.create(**how)
    stream = client.chat.completions.create(
        **how, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len(chunks) > 5 and chunks[-1].usage == whole.usage and not chunks[-1].choices
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert mine[0].delta.role == "assistant"
        text = "".join(c.delta.content or "" for c in mine)
        assert text == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        told = [token for c in mine if c.logprobs for token in c.logprobs.content]
        assert told == choice.logprobs.content


def test_stop_strings_end_the_text_and_no_part_of_them_is_sent(client):
    how = dict(model="tiny", prompt="ab", max_tokens=40, seed=3)
    free = client.completions.create(**how).choices[0].text
    stop = next(free[i : i + 2] for i in range(4, 30) if free[i : i + 2].isascii())
    found = client.completions.create(**how, stop=stop).choices[0]
    assert (found.text, found.finish_reason) == (free.partition(stop)[0], "stop")
    pieces = client.completions.create(**how, stop=["never said", stop], stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == found.text


REFUSED = {  # what is sent beside a good request -> what the answer says
    "messages": [
        ({"model": "gpt-4"}, 404, "'gpt-4' does not exist; use 'tiny'"),
        ({"model": None}, 400, "model is not given; use 'tiny'"),
        ({"messages": []}, 400, "messages is empty"),
        ({"messages": "hi"}, 400, "messages is str; it must be list"),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            400,
            r"messages\[0\].role must be one of",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "content is int"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "is no text"),
        ({"messages": [*ASK, ASK[0]]}, 400, "the system message must be the first"),
        ({"messages": [{"role": "user", "content": "a" * 99}]}, 400, "the context holds 96"),
        ({"messages": ASK[1:] * 1001}, 400, "1001 messages are more than 1000"),
        ({"messages": [{"role": "user", "content": "a" * 6145}]}, 400, "6145 bytes; the context"),
        ({"temperature": 10**400}, 400, "temperature is out of range"),
        ({"max_tokens": 96}, 400, "the reply may have 96"),
        ({"max_tokens": True}, 400, "max_tokens is bool; it must be int"),
        ({"max_tokens": 0}, 400, "max_tokens=0 is out of range"),
        ({"n": 9}, 400, "n=9 samples of 1 prompts are more than 8"),
        ({"temperature": -1}, 400, "temperature=-1.0 is out of range"),
        ({"temperature": float("nan")}, 400, "temperature=nan is out of range"),
        ({"top_p": 2}, 400, "top_p=2.0 is out of range"),
        ({"top_logprobs": 3}, 400, "top_logprobs needs logprobs: true"),
        ({"stop": [""]}, 400, "1 to 200 characters"),
        ({"tools": [{}]}, 400, "tools is not supported"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty is not supported"),
        ({"temprature": 1}, 400, "'temprature' is not known"),
    ],
    "prompt": [
        ({"prompt": []}, 400, "prompt is an empty list"),
        ({"prompt": [1, "a"]}, 400, "something other than tokens"),
        ({"prompt": [300]}, 400, "prompt holds token 300"),
        ({"prompt": [-1]}, 400, "prompt holds token -1"),
        ({"logprobs": 21}, 400, "logprobs=21 is out of range; use 0 to 20"),
        ({"echo": True}, 400, "echo is not supported"),
    ],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_have_one_line_in_the_shape_of_openais(server, kind):
    path = "/v1/chat/completions" if kind == "messages" else "/v1/completions"
    good = {"model": "tiny", kind: ASK if kind == "messages" else "ab", "max_tokens": 1}
    assert post(server, path, json.dumps(good).encode())[0] == 200
    for change, status, text in REFUSED[kind]:
        found, answer = post(server, path, json.dumps(good | change).encode())
        assert found == status, (change, answer)
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert "\n" not in answer["error"]["message"]
        assert re.search(text, answer["error"]["message"]), (change, answer)


def test_the_clients_errors_are_those_of_openais(client):
    with pytest.raises(openai.BadRequestError, match="at most") as refused:
        client.chat.completions.create(messages=ASK, model="tiny", max_tokens=1000)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(messages=ASK, model="gpt-4")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{bad", 400, "not valid JSON"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b"[1]", 400, "not a JSON object"),
        (b"", 400, "not valid JSON"),
        (b" " * 10_000_000, 413, "more than 1048576 bytes"),
    ],
)
def test_damaged_and_large_bodies(server, body, status, text):
    found, answer = post(server, "/v1/completions", body)
    assert found == status and text in answer["error"]["message"]


def test_unknown_paths_and_methods(server):
    assert post(server, "/v1/embeddings", b"{}")[0] == 404
    status, answer = post(server, "/v1/models", b"{}")
    assert status == 405 and "POST /v1/models" in answer["error"]["message"]


def test_only_pages_of_this_server_may_ask(server):
    host = urllib.parse.urlsplit(server.address).netloc
    good = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1}).encode()
    for headers, status in (
        ({"Origin": f"http://{host}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "127.0.0.2"}, 200),
    ):
        assert post(server, "/v1/completions", good, headers)[0] == status, headers


def test_a_token_keeps_others_out(opened):
    with running(opened, token="secret-å") as server:
        good = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1}).encode()
        for value in (None, "Bearer wrong", "secret-å", "Basic secret-å"):
            headers = {"Authorization": value.encode()} if value else {}
            status, answer = post(server, "/v1/completions", good, headers)
            assert status == 401 and answer["error"]["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client_of(server, "wrong").models.list()
        right = {"Authorization": "Bearer secret-å".encode()}
        assert post(server, "/v1/completions", good, right)[0] == 200


def test_more_requests_than_may_wait_are_refused(client, server):
    long = dict(model="tiny", prompt="ab", max_tokens=90, stream=True)
    streams = []
    with pytest.raises(openai.RateLimitError, match="try later"):
        for _ in range(3 * (SLOTS + WAITING)):
            streams.append(client.completions.create(**long, n=SLOTS + WAITING))
    for stream in streams:
        stream.close()
    idle(server.engine)


def idle(engine, seconds=60):
    """Waits until no request is served."""
    ends = time.monotonic() + seconds
    while engine.active() != (0, 0):
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_slots(server, stream, monkeypatch):
    """The engine is slowed so that a request which nobody wants would take minutes."""
    engine, ended = server.engine, []
    real = engine._deliver
    monkeypatch.setattr(engine, "_deliver", lambda *step: (time.sleep(0.5), real(*step)))
    add = engine.submit

    def submit(*requests):
        ended.extend(requests)
        add(*requests)

    monkeypatch.setattr(engine, "submit", submit)
    place = urllib.parse.urlsplit(server.address)
    link = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
    body = {"model": "tiny", "prompt": "ab", "max_tokens": 90, "n": SLOTS + 1, "stream": stream}
    link.request("POST", "/v1/completions", json.dumps(body | {"temperature": 3.0}))
    if stream:
        assert link.getresponse().readline().startswith(b"data: ")
    ends = time.monotonic() + 60
    while not engine.active()[0]:  # one that ends by itself may have given its slot away
        assert time.monotonic() < ends
        time.sleep(0.02)
    link.close()
    idle(engine, 20)
    assert CANCELLED in [request.ended for request in ended]


def test_nulls_stand_for_nothing(server):
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": None}, ASK[1]]
    body = {"model": "tiny", "messages": messages, "max_tokens": 1, "stream": True}
    body["stream_options"] = {"include_usage": None}
    place = urllib.parse.urlsplit(server.address)
    link = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
    link.request("POST", "/v1/chat/completions", json.dumps(body))
    answer = link.getresponse()
    assert answer.status == 200 and answer.read().isascii()


def test_bodies_that_are_being_read_count_as_requests(opened, monkeypatch):
    """The engine has room, but as many bodies are read as it has."""
    service = app.Service(opened, SimpleNamespace(n_slots=1, waiting=1, active=lambda: (0, 0)),
                          app.Limits())  # fmt: skip
    gate = threading.Event()
    monkeypatch.setattr(app, "parse", lambda *_: gate.wait(60))

    async def three():
        asked = [asyncio.create_task(service._parsed(b"", "chat")) for _ in range(3)]
        done, _ = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        await asyncio.gather(*asked, return_exceptions=True)
        return [task.exception().status for task in done], service.parsing

    assert asyncio.run(three()) == ([429], 0)


def test_a_reply_that_the_end_cuts_is_not_complete(opened, monkeypatch):
    with running(opened) as server:
        real = server.engine._deliver
        slowed = lambda *step: (time.sleep(0.2), real(*step))  # noqa: E731
        monkeypatch.setattr(server.engine, "_deliver", slowed)
        place = urllib.parse.urlsplit(server.address)
        asked = {"model": "tiny", "prompt": "ab", "max_tokens": 90, "temperature": 3}
        body = json.dumps(asked | {"seed": 0})  # with which no token before the 90th ends a reply
        links = []
        for stream in ("true", "false"):
            link = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
            link.request("POST", "/v1/completions", f'{body[:-1]}, "stream": {stream}}}')
            links.append(link)
        first = links[0].getresponse()
        assert first.readline().startswith(b"data: ")
        while server.engine.active()[0] < 2:
            time.sleep(0.02)
        server.engine.close()
        rest = first.read().decode()
        assert '"error"' in rest and "[DONE]" not in rest and '"stop"' not in rest
        assert links[1].getresponse().status == 503
        assert post(server, "/v1/completions", body)[0] == 503


@pytest.mark.slow
def test_fifty_streams_at_once(opened):
    async def one(client, number):
        stream = await client.chat.completions.create(
            messages=[{"role": "user", "content": f"{number}"}], model="tiny", temperature=0.0,
            max_tokens=40, stream=True,
        )  # fmt: skip
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def every(address):
        client = openai.AsyncOpenAI(
            base_url=f"{address}v1", api_key="none", max_retries=0, timeout=300
        )
        together = await asyncio.gather(*(one(client, number % 10) for number in range(50)))
        alone = [await one(client, number) for number in range(10)]
        return together, alone

    with running(opened, slots=8, waiting=50) as server:
        together, alone = asyncio.run(every(server.address))
    assert together == alone * 5 and len(set(alone)) > 5
