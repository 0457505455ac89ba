"""Responses from servers that answer, misbehave, throttle and die; all on 127.0.0.1."""

import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import Fault, Server, echo

from dipscope.engine import reply
from dipscope.engine.dispatch import Patience
from dipscope.engine.pace import Pace
from dipscope.engine.reply import Trouble
from dipscope.engine.server import ServerWriter
from dipscope.engine.text import Ask, TextSampling
from dipscope.errors import DipscopeError

pytestmark = pytest.mark.timeout(60)

QUICK = Patience(timeout=2.0, attempts=4, backoff=0.01, in_flight=16)


def asks(n, prompt="question", **sampling):
    return [Ask(f"k{i}", (("user", f"{prompt} {i}"),), TextSampling(**sampling), 1000 + i) for i in range(n)]


def write(servers, wanted, model="m", **options):
    urls = [s if isinstance(s, str) else s.url for s in servers]
    writer = ServerWriter(urls, model, **{"patience": QUICK} | options)
    drafts = {d.key: d for d in writer.write(iter(wanted))}
    assert set(drafts) == {a.key for a in wanted}
    return drafts


def test_every_request_says_how_it_is_drawn():
    with Server(echo) as server:
        drafts = write([server], asks(5, temperature=0.3, top_p=0.8, top_k=7, min_p=0.05, max_tokens=99))
    assert {b["seed"] for b in server.bodies} == {1000, 1001, 1002, 1003, 1004}
    for body in server.bodies:
        drawn = {k: body[k] for k in ("temperature", "top_p", "top_k", "min_p", "max_tokens", "model", "n")}
        asked = {"temperature": 0.3, "top_p": 0.8, "top_k": 7, "min_p": 0.05, "max_tokens": 99}
        assert drawn == {**asked, "model": "m", "n": 1}
    draft = drafts["k2"]
    assert draft.text == "question 2 1002" and draft.finish == "stop"
    assert (draft.n_tokens, draft.n_prompt_tokens) == (15, 10)


def test_top_k_off_is_sent_as_off():
    with Server(echo) as server:
        write([server], asks(1, top_k=0))
    assert server.bodies[0]["top_k"] == -1


def test_finish_and_usage_are_the_servers_own():
    def answer(body):
        number = int(body["messages"][0]["content"].split()[1])
        reasons = ["stop", "length", "content_filter"]
        return {"content": "x" * 50, "finish_reason": reasons[number]}  # no usage

    with Server(answer) as server:
        drafts = write([server], asks(3, max_tokens=5))
    assert [drafts[f"k{i}"].finish for i in range(3)] == ["stop", "length", "error"]
    assert drafts["k0"].n_tokens is None and drafts["k0"].n_prompt_tokens is None
    assert "content_filter" in drafts["k2"].reason


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_that_is_reported_apart_becomes_a_thinking_block(field):
    def answer(body):
        number = int(body["messages"][0]["content"].split()[1])
        content = ["The answer is 4.", "\n\nThe answer is 4.", None, ""][number]
        return {
            "content": content,
            field: "\n2 and 2\nmake 4\n",
            "finish_reason": "length" if number > 1 else "stop",
        }

    with Server(answer) as server:
        drafts = write([server], asks(4))
    assert drafts["k0"].text == "<think>\n2 and 2\nmake 4\n</think>\nThe answer is 4."
    assert drafts["k1"].text == "<think>\n2 and 2\nmake 4\n</think>\n\nThe answer is 4."
    # nothing shows that the thinking ended, so it is not closed
    assert drafts["k2"].text == drafts["k3"].text == "<think>\n2 and 2\nmake 4"


def test_a_template_that_opens_the_thinking():
    def answer(body):
        said = ["so 4\n</think>\n4", "<think>\nso 4\n</think>\n4"][
            int(body["messages"][0]["content"].split()[1])
        ]
        return {"content": said, "finish_reason": "stop"}

    with Server(answer) as server:
        drafts = write([server], asks(2), opened=True)
    assert drafts["k0"].text == drafts["k1"].text == "<think>\nso 4\n</think>\n4"


def test_the_model_is_asked_for():
    with Server(echo, models=("Qwen/Qwen3-32B",)) as server:
        assert ServerWriter([server.url + "/"]).name == "server/Qwen/Qwen3-32B"
    with (
        Server(echo, models=("a", "b")) as server,
        pytest.raises(DipscopeError, match=r"several models \(a, b\)"),
    ):
        ServerWriter([server.url])
    with pytest.raises(DipscopeError, match="no server says which model"):
        ServerWriter([server.url])  # it is gone by now


@pytest.mark.parametrize(
    "fault",
    {
        "500": Fault(status=500, body=b"oops"),
        "502": Fault(status=502, body=b"<html>bad gateway</html>"),
        "drop": Fault(drop=True),
        "cut json": Fault(body=b'{"choices": [{"mess'),
        "cut body": Fault(body=b'{"choices": [{"message": {"content": "x"}, "finish', cut=100),
        "no choices": Fault(body=b'{"choices": []}'),
        "no message": Fault(body=b'{"choices": [{"message": null, "finish_reason": "stop"}]}'),
        "no finish": Fault(body=b'{"choices": [{"message": {"content": "x"}, "finish_reason": null}]}'),
        "number": Fault(body=b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}'),
        "list": Fault(body=b"[1]"),
        "bytes": Fault(body=b"\xff\xfe"),
        "deep": Fault(body=b"[" * 100_000),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_breaks_is_tried_again(fault):
    with Server(echo, fault=lambda number, body: fault[1] if number % 3 == 0 else None) as server:
        drafts = write([server], asks(7))
    assert all(d.finish == "stop" for d in drafts.values())
    assert len(server.bodies) > 7


def test_what_stays_broken_is_an_error_and_the_rest_goes_on():
    def fault(number, body):
        return Fault(body=b'{"choices": []}') if body["seed"] == 1003 else None

    with Server(echo, fault=fault) as server:
        drafts = write([server], asks(8))
    assert [k for k, d in drafts.items() if d.finish == "error"] == ["k3"]
    assert drafts["k3"].text == "" and "not a chat completion" in drafts["k3"].reason
    assert sum(b["seed"] == 1003 for b in server.bodies) == QUICK.attempts
    assert drafts["k3"].lost == QUICK.attempts and drafts["k0"].lost == 0


def test_a_time_out_is_tried_again_and_may_have_been_charged():
    patience = Patience(timeout=0.3, attempts=3, backoff=0.01)
    with Server(echo, fault=lambda number, body: Fault(hang=1.0) if number == 0 else None) as server:
        drafts = write([server], asks(3), patience=patience)
    assert all(d.finish == "stop" for d in drafts.values())
    assert sum(d.lost for d in drafts.values()) == 1


@pytest.mark.parametrize("later", ["seconds", "date"])
def test_a_server_that_asks_to_wait_is_waited_for(later):
    headers = {"Retry-After": "1"}
    if later == "date":
        headers = {"Retry-After": "Wed, 21 Oct 2015 07:28:01 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}

    def fault(number, body):
        return Fault(status=429, headers=headers) if number < 4 else None

    with Server(echo, fault=fault) as server:
        # being throttled is not a failed attempt, so one attempt is enough
        drafts = write([server], asks(6), patience=Patience(attempts=1, backoff=0.01))
    assert all(d.finish == "stop" for d in drafts.values())
    first = min(t for t, b in zip(server.times[4:], server.bodies[4:], strict=True))
    assert first - server.times[3] >= (0.99 if later == "seconds" else 0.0)
    assert len(server.bodies) == 10


def test_throttled_for_ever_is_given_up():
    with (
        Server(echo, fault=lambda number, body: Fault(status=429)) as server,
        pytest.raises(DipscopeError, match="no server answers any more") as caught,
    ):
        write([server], asks(20), patience=Patience(backoff=0.002, throttled=0.01))
    assert caught.value.exit_code == 1


def test_a_poisoned_prompt_is_an_error_and_not_the_end():
    def fault(number, body):
        size = len(body["messages"][0]["content"])
        said = b'{"error": {"message": "This prompt is\\n too long", "code": 400}}'
        return Fault(status=400, body=said) if size > 10_000 else None

    def answer(body):
        body["messages"][0]["content"].encode()  # what a tokenizer does; fails on a lone surrogate
        return echo(body)

    wanted = asks(6)
    wanted[1] = Ask("k1", (("user", "lone \ud800 surrogate"),), TextSampling(), 1)
    wanted[4] = Ask("k4", (("user", "x" * 1_000_000),), TextSampling(), 1)
    with Server(answer, fault=fault) as server:
        drafts = write([server], wanted)
    assert {k for k, d in drafts.items() if d.finish == "error"} == {"k1", "k4"}
    assert drafts["k4"].reason == "the server refused the request (400: This prompt is too long)"
    assert len(server.bodies) == 6  # not tried again
    assert server.bodies and any(
        b["messages"][0]["content"] == "lone \ud800 surrogate" for b in server.bodies
    )


def test_a_server_that_refuses_everything_ends_the_run_in_one_line():
    said = b'{"error": {"message": "Unrecognized request argument supplied: top_k"}}'
    with (
        Server(echo, fault=lambda number, body: Fault(status=400, body=said)) as server,
        pytest.raises(DipscopeError, match="Unrecognized request argument supplied: top_k") as caught,
    ):
        write([server], asks(50))
    assert len(server.bodies) < 30 and caught.value.exit_code == 2


def test_a_wrong_key_ends_the_run_and_is_never_shown(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with Server(echo, key="sk-right") as server:
        for model in ("m", None):
            with pytest.raises(DipscopeError, match=r"does not accept the key in MY_KEY \(401\)") as caught:
                write([server], asks(5), model=model, key_variable="MY_KEY")
            assert "secret" not in str(caught.value) + repr(caught.value.args)
        with pytest.raises(DipscopeError, match=r"does not accept a request without a key \(401\)"):
            write([server], asks(5))
        monkeypatch.setenv("MY_KEY", "sk-right")
        write([server], asks(5), key_variable="MY_KEY")
    assert "sk-" not in caplog.text
    with pytest.raises(DipscopeError, match="NO_KEY: the environment variable is not set"):
        ServerWriter([server.url], "m", key_variable="NO_KEY")


def test_a_key_that_the_server_echoes_is_blotted_out(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    said = b'{"error": {"message": "sk-very-secret may not use this"}}'
    with Server(
        echo, fault=lambda number, body: Fault(status=400, body=said) if number < 2 else None
    ) as server:
        drafts = write([server], asks(6), key_variable="MY_KEY")
    reasons = {d.reason for d in drafts.values() if d.finish == "error"}
    assert reasons == {"the server refused the request (400: *** may not use this)"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=500), r"no server answers any more \(the server failed \(500\)\)"),
        (Fault(body=b"<html>log in</html>"), r"the reply is not a chat completion"),
        (Fault(status=302, headers={"Location": "/login"}), "the server answered 302"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_server_that_never_answers_ends_the_run(fault, said):
    def broken(number, body):
        return fault

    with Server(echo, fault=broken) as server, pytest.raises(DipscopeError, match=said):
        write([server], asks(50), patience=Patience(attempts=3, backoff=0.001))
    assert len(server.bodies) <= 50


def test_a_server_that_breaks_on_the_way_ends_the_run():
    drafts = []
    with (
        Server(echo, fault=lambda number, body: Fault(status=500) if number > 20 else None) as server,
        pytest.raises(DipscopeError, match="no server answers any more") as caught,
    ):
        writer = ServerWriter([server.url], "m", patience=Patience(attempts=3, backoff=0.001))
        drafts += writer.write(asks(50))
    assert caught.value.exit_code == 1 and len(server.bodies) < 60


def test_a_missing_model_ends_the_run():
    said = b'{"error": {"message": "The model `m` does not exist"}}'
    with (
        Server(echo, fault=lambda number, body: Fault(status=404, body=said)) as server,
        pytest.raises(DipscopeError, match=r"no model 'm'.*does not exist.*--model"),
    ):
        write([server], asks(5))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://u:pw@host/v1", "http://host/v1?k=pw"]
)
def test_an_address_that_is_none(address):
    with pytest.raises(DipscopeError) as caught:
        ServerWriter([address], "m")
    assert "pw" not in str(caught.value)


def test_several_servers_share_the_work():
    with Server(echo, delay=0.01) as one, Server(echo, delay=0.01) as two:
        write([one, two], asks(40))
    assert len(one.bodies) + len(two.bodies) == 40
    assert min(len(one.bodies), len(two.bodies)) >= 12


def test_one_of_two_servers_dies():
    with Server(echo, delay=0.02) as one, Server(echo, delay=0.02) as two:
        writer = ServerWriter([one.url, two.url], "m", patience=QUICK)
        drafts = []
        for draft in writer.write(asks(60)):
            drafts.append(draft)
            if len(drafts) == 10:
                threading.Thread(target=two.stop).start()
        assert {d.finish for d in drafts} == {"stop"}
        assert len({d.key for d in drafts}) == 60
        assert len(one.bodies) > 40


def test_no_server_answers():
    with Server(echo) as server:
        pass
    with pytest.raises(DipscopeError, match="no server answers any more") as caught:
        write([server], asks(5))
    assert caught.value.exit_code == 1 and server.url in str(caught.value)


def test_a_dropped_iterator_cancels_what_is_in_flight():
    with Server(echo, delay=0.05) as server:
        taken = iter(ServerWriter([server.url], "m", patience=QUICK).write(asks(1000)))
        next(taken)
        begun = time.monotonic()
        taken.close()
        assert time.monotonic() - begun < 20
        time.sleep(1.0)  # what was on its way when the iterator was closed may still arrive
        sent = len(server.bodies)
        time.sleep(0.3)
        assert len(server.bodies) == sent < 500
    assert not [t for t in threading.enumerate() if t.name == "teacher"]


def test_an_exception_in_the_asks_arrives():
    def broken():
        yield asks(1)[0]
        raise KeyError("the table broke")

    with Server(echo) as server, pytest.raises(KeyError, match="the table broke"):
        list(ServerWriter([server.url], "m", patience=QUICK).write(broken()))


def test_concurrency_grows_to_its_bound_and_no_further():
    with Server(echo, delay=0.02) as server:
        write([server], asks(150), patience=Patience(in_flight=6))
    assert server.most_in_flight == 6


def test_nothing_is_asked_ahead_of_need():
    """What a budget lets through is decided as requests start, so asks must not be drawn early."""
    drawn = []

    def lazily():
        for ask in asks(100):
            drawn.append(ask.key)
            yield ask

    with Server(echo, delay=0.02) as server:
        written = ServerWriter([server.url], "m", patience=Patience(in_flight=4)).write(lazily())
        for seen, _ in enumerate(written, 1):
            if seen == 20:
                assert len(drawn) <= 20 + 4 + 8


def test_pace_grows_while_responses_are_as_fast_and_halves_once_a_setback():
    pace = Pace(most=64, start=4)
    for _ in range(20):
        pace.succeeded(1.0, 100)
    assert pace.limit == 24  # one each until the first setback
    assert pace.failed(started=5.0, now=10.0) and pace.limit == 12
    assert not pace.failed(started=9.0, now=11.0) and pace.limit == 12  # was in flight at the setback
    for _ in range(12):
        pace.succeeded(1.0, 100)
    assert 12.9 < pace.limit < 13.1  # one a round from now on
    before = pace.limit
    for _ in range(200):
        pace.succeeded(10.0, 100)
    assert pace.limit < before + 2  # ten times slower: no longer grows
    for now in range(20, 40):
        pace.failed(started=now, now=now)
    assert pace.limit == 1 and pace.room(0) and not pace.room(1)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(0, 20_000)), max_size=200))
def test_pace_stays_within_its_bounds(events):
    pace, now = Pace(most=32), 0.0
    for good, seconds, tokens in events:
        now += 1
        if good:
            pace.succeeded(seconds, tokens)
        else:
            pace.failed(now - seconds, now)
        assert 1 <= pace.limit <= 32


@given(st.binary(max_size=200), st.sampled_from([200, 200, 200, 204, 301, 400, 418, 429, 500, 599]))
def test_no_reply_is_too_odd_to_be_read(content, status):
    found = reply.read(status, {}, content, asks(1)[0])
    assert isinstance(found, Trouble) and found.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "usage", "error"]), inner
        )
    ),
    max_leaves=10,
)


@given(JSON, st.sampled_from([200, 400, 404]))
def test_no_json_is_too_odd_to_be_read(value, status):
    found = reply.read(status, {}, json.dumps(value).encode(), asks(1)[0])
    assert isinstance(found, Trouble) or found.finish in ("stop", "length", "error")


@given(st.text(max_size=40))
def test_what_is_kept_can_be_stored(text):
    body = json.dumps(
        {
            "choices": [
                {"message": {"content": text + "\ud800", "reasoning": "\udfff"}, "finish_reason": "stop"}
            ]
        }
    )
    reply.read(200, {}, body.encode(), asks(1)[0]).text.encode()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),  # no Date to read it against
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers, seconds):
    assert reply.retry_after(headers) == seconds
