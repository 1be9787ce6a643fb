"""What service.yaml may say of the status page."""

import pytest
from pydantic import ValidationError

from xmode_transfer.config import SecretRef, Service, StatusPage
from xmode_transfer.config.secrets import SecretKind


@pytest.mark.parametrize(
    ("listen", "host", "port", "is_local"),
    [
        ("127.0.0.1:8321", "127.0.0.1", 8321, True),
        ("127.8.0.1:0", "127.8.0.1", 0, True),
        ("localhost:65535", "localhost", 65_535, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:8321", "0.0.0.0", 8321, False),
        ("[::]:8321", "::", 8321, False),
        ("10.1.2.3:80", "10.1.2.3", 80, False),
    ],
)
def test_an_address_is_taken_apart(listen: str, host: str, port: int, is_local: bool) -> None:
    page = StatusPage(listen=listen, token=SecretRef(SecretKind.ENV, "PAGE_TOKEN"))
    assert (page.host, page.port, page.is_local) == (host, port, is_local)


@pytest.mark.parametrize("listen", ["0.0.0.0:8321", "[::]:8321", "10.1.2.3:80", "[::ffff:10.1.2.3]:80"])
def test_others_can_reach_it_only_with_a_token(listen: str) -> None:
    with pytest.raises(ValidationError, match="everybody who can reach"):
        StatusPage(listen=listen)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("8321", "did you mean 127.0.0.1:8321?"),
        ("127.0.0.1", "did you mean 127.0.0.1:8321?"),
        (":8321", "127.0.0.1:8321 for this machine alone, 0.0.0.0:8321 for all"),
        ("127.0.0.1:65536", "an address and a port"),
        ("::1:8321", "an address and a port"),
        ("status.example.com:80", "is not an IP address"),
        ("http://127.0.0.1:80", "an address and a port"),
        ("", "an address and a port"),
    ],
)
def test_what_is_no_address_is_told_with_what_is(listen: str, told: str) -> None:
    with pytest.raises(ValidationError, match="listen") as caught:
        StatusPage(listen=listen)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "host", ["https://status.example.com/x", "Status.Example.com", "status.example.com:443"]
)
def test_a_host_is_a_name_alone(host: str) -> None:
    with pytest.raises(ValidationError, match=r"did you mean status\.example\.com\?"):
        StatusPage(hosts=(host,))


def test_there_is_a_page_for_this_machine_unless_it_is_off() -> None:
    assert Service().status_page == StatusPage(listen="127.0.0.1:8321")
    for off in ("off", "Off", "no", "false", False):
        assert Service.model_validate({"status_page": off}).status_page is None
    for neither in ("on", True, "127.0.0.1:80", None):
        with pytest.raises(ValidationError, match="write off, or"):
            Service.model_validate({"status_page": neither})


def test_the_probes_have_a_port_of_their_own_or_none() -> None:
    assert StatusPage().probes is None
    assert StatusPage(probes="0.0.0.0:8323").probes == "0.0.0.0:8323"  # they want no token
    with pytest.raises(ValidationError, match="`probes` has the page's port, 8321"):
        StatusPage(listen="127.0.0.1:8321", probes="0.0.0.0:8321")
    with pytest.raises(ValidationError, match="an address and a port"):
        StatusPage(probes="8323")
