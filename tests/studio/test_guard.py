"""Strangers: keys, names, origins, sizes. The application answers here without a server, since
nothing that is asked for needs a job."""

import asyncio
import base64

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffuse.errors import SuffuseError
from suffuse.studio.app import create_app
from suffuse.studio.door import Door
from suffuse.studio.service import Service
from suffuse.studio.settings import Limits, Settings

KEY = "correct horse"
ASKED = "/api/options"


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """ask(method, path, door, **options): the response of an application behind that door, or of
    `app`."""
    settings = Settings(data=tmp_path_factory.mktemp("data"), limits=Limits(body=2048))
    service = Service(settings)
    apps = {}

    def ask(method="GET", path=ASKED, door=None, app=None, **options):
        door = door or Door()
        if app is None:
            app = apps[door] = apps.get(door) or create_app(service, settings, door)

        async def send():
            transport = httpx.ASGITransport(app, client=("10.1.2.3", 4))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:7860"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return ask


def basic(pair):
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "studio.example", ""])
def test_other_addresses_need_a_key_or_the_word(host):
    with pytest.raises(SuffuseError, match=r"--api-key.*SUFFUSE_API_KEY.*--insecure"):
        Door(host).check()
    Door(host, KEY).check()
    Door(host).check(insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_none(host):
    Door(host).check()


@pytest.mark.parametrize(
    ("door", "why"),
    [
        (Door(api_key="  "), "empty"),
        (Door(api_key=""), "empty"),
        (Door(api_key="schlüssel"), "ASCII"),
        (Door(api_key="a\nb"), "ASCII"),
        (Door(origins=("example.org",)), "cors-origin"),
        (Door(origins=("https://example.org/",)), "cors-origin"),
        (Door(origins=("*",)), "cors-origin"),
    ],
)
def test_doors_that_cannot_be(door, why):
    with pytest.raises(SuffuseError, match=why):
        door.check()


@pytest.mark.parametrize(
    "header",
    [f"Bearer {KEY}", f"bearer {KEY}", basic(f"anyone:{KEY}"), basic(f":{KEY}"), basic(KEY)],
)
def test_the_key_opens(ask, header):
    assert ask(door=Door(api_key=KEY), headers={"authorization": header}).status_code == 200


def test_a_key_that_is_a_user_and_a_password(ask):
    door = Door(api_key="me:secret")
    for header in (basic("me:secret"), "Bearer me:secret"):
        assert ask(door=door, headers={"authorization": header}).status_code == 200
    for header in (basic("you:secret"), "Bearer secret"):
        assert ask(door=door, headers={"authorization": header}).status_code == 401


@given(header=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60))
def test_nothing_else_opens(header):
    assert not Door(api_key=KEY).opens(header)
    assert not Door(api_key=KEY).opens(f"Basic {header}")
    assert not Door(api_key=KEY).opens(f"Bearer {header}")
    assert not Door(api_key=KEY).opens(basic(header))


@pytest.mark.parametrize(
    "path",
    ["/", "/main.js", "/metrics", "/openapi.json", "/api/jobs", "/v1/models", "/nowhere"],
)
def test_everything_asks_for_the_key(ask, path):
    found = ask(path=path, door=Door(api_key=KEY))
    assert found.status_code == 401
    schemes = [one.partition(" ")[0] for one in found.headers.get_list("www-authenticate")]
    assert schemes == ["Basic", "Bearer"]


def test_each_interface_is_refused_in_its_own_words(ask):
    door = Door(api_key=KEY)
    ours, openai, a1111 = (
        ask("POST", path, door).json()
        for path in ("/api/jobs", "/v1/images/generations", "/sdapi/v1/txt2img")
    )
    assert ours["error"] == {"message": "the API key is missing or wrong", "field": None}
    assert openai["error"]["type"] == "authentication_error"
    assert a1111["detail"] == "the API key is missing or wrong"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860"])
def test_names_of_this_machine(ask, host):
    assert ask(headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.168.1.5", "localhost.",
     "127.0.0.1@evil.example", "", "a b", "localhost:x", "[::1", "localhost/x"],
)  # fmt: skip
def test_other_names_are_rebinding(ask, host):
    found = ask(headers={"host": host})
    assert found.status_code in (400, 403)
    assert found.headers["content-type"] == "application/json"


def test_names_that_are_allowed(ask):
    everywhere = Door("0.0.0.0", KEY, ("studio.example",))
    for name in ("Studio.example", "192.168.1.5", "::1", "0.0.0.0", "localhost"):
        assert everywhere.called(name.lower())
    assert not everywhere.called("evil.example")
    assert Door("box.lan").called("box.lan") and not Door("box.lan").called("192.168.1.5")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),  # another program of this machine
        ({"origin": "http://127.0.0.1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "http://127.0.0.1:x"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate",
          "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate",
          "sec-fetch-dest": "iframe"}, 403),
    ],
)  # fmt: skip
def test_pages_of_other_sites(ask, headers, status):
    assert ask(headers=headers).status_code == status


def test_a_form_of_another_site_posts_nothing(ask):
    posted = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    posted |= {"sec-fetch-dest": "document"}
    assert ask("POST", "/api/jobs", headers=posted, content="{}").status_code == 403


def test_no_cors_unless_named(ask):
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    refused = ask("OPTIONS", "/api/jobs", headers=asks)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    door = Door(api_key=KEY, origins=("https://app.example",))
    preflight = ask("OPTIONS", "/api/jobs", door, headers=asks)
    assert preflight.status_code == 200
    told = {"origin": "https://app.example", "authorization": f"Bearer {KEY}"}
    granted = ask(door=door, headers=told)
    for found in (preflight, granted):
        assert found.headers["access-control-allow-origin"] == "https://app.example"
    assert ask(door=door, headers={**told, "origin": "https://b.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/options", "/nowhere"])
def test_every_answer_is_strict(ask, path):
    headers = ask(path=path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/api/jobs", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_bodies_are_bounded(ask, path):
    told = ask("POST", path, json={"prompt": "a" * 4000})
    assert told.status_code == 413

    async def chunks():  # without saying how much there will be
        for _ in range(100):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    untold = ask("POST", path, content=chunks(), headers=headers)
    assert untold.status_code == 413
    lied = ask("POST", path, content=b"{}", headers={**headers, "content-length": "-1"})
    assert lied.status_code == 413


def test_who_asks(ask):
    assert ask(headers={"x-client": "tab-1"}).status_code == 200
    assert ask(headers={"x-client": "a b"}).status_code == 400
    assert ask(headers={"x-client": "a" * 65}).status_code == 400


def test_request_ids(ask):
    assert ask(headers={"x-request-id": "mine-1.2"}).headers["x-request-id"] == "mine-1.2"
    given = ask(headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert len(given) == 16
    assert ask().headers["x-request-id"] != ask().headers["x-request-id"]


def test_a_fault_of_ours_tells_nothing_but_its_id(ask, caplog):
    broken = create_app(None, Settings())  # has no service to ask
    found = ask(path="/api/models", app=broken, headers={"x-request-id": "the-id"})
    assert found.status_code == 500
    assert found.json()["error"]["message"].endswith("under the request id the-id")
    assert found.headers["content-security-policy"]
    assert "Traceback" in caplog.text and "Traceback" not in found.text
