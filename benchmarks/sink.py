"""The other end of a benchmark: nginx that reads every body, drops it, and answers as S3 does, with the
checksum that it was sent; and an STS that gives a session to whoever asks. Both on 127.0.0.1.

nginx is faster than every client measured here, so the client is what is measured. It does not check bodies
or signatures, which S3 does at its own cost.
"""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs
from urllib.request import urlopen

_CONFIG = """
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  default_type application/xml;
  split_clients "$request_id" $unlucky {{ {refused}% 1; * 0; }}
  map $args $page {{ default 0; "~continuation-token=(?<token>[0-9]+)" $token; }}
  map "$request_method:$args" $what {{
    default put;
    "~^GET:" list;
    "~^HEAD:" head;
    "~^POST:uploads" create;
    "~^POST:.*uploadId" complete;
    "~^POST:" other;
  }}
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {directory}/cert.pem;
    ssl_certificate_key {directory}/key.pem;
    add_header ETag '"0123456789abcdef0123456789abcdef"' always;
    add_header x-amz-request-id 0000000000000000 always;
    add_header x-amz-bucket-region us-east-1 always;
    add_header x-amz-checksum-crc32 $http_x_amz_checksum_crc32;
    add_header x-amz-checksum-crc64nvme $http_x_amz_checksum_crc64nvme;
    location = /healthy {{ return 200 "ok"; }}
    location = /status {{ stub_status; }}
    location / {{
      if ($unlucky) {{
        return 503 "<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>";
      }}
      if ($what = create) {{
        return 200 "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>$request_id</UploadId></InitiateMultipartUploadResult>";
      }}
      if ($what = complete) {{
        return 201 '<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>"0-1"</ETag><ChecksumCRC32>$http_x_amz_checksum_crc32</ChecksumCRC32><ChecksumType>FULL_OBJECT</ChecksumType></CompleteMultipartUploadResult>';
      }}
      if ($what = head) {{ return 404; }}
      if ($what = list) {{ rewrite ^ /pages/$page.xml last; }}
      return 204;  # nginx turns 200 into 304 for If-None-Match: *
    }}
    location /pages/ {{ root {directory}; }}
  }}
}}
"""

_NO_OBJECTS = (
    '<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix></Prefix><KeyCount>0</KeyCount>'
    "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)


class Sink(NamedTuple):
    """Where to send: plain and TLS endpoints, the STS, and the certificate's path for TLS clients."""

    url: str
    tls_url: str
    sts_url: str
    certificate: Path
    directory: Path
    near_url: str = ""

    def requests(self) -> int:
        """How many requests have been made so far, to S3 and to STS. Asking counts as one itself."""
        answer = urlopen(f"{self.near_url or self.url}/status").read().decode()
        return int(answer.splitlines()[2].split()[2]) + _Sts.asked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(directory: Path, *, refused_percent: float = 0.0, delay_seconds: float = 0.0) -> Iterator[Sink]:
    """nginx and the STS, ended by their own handles. ``refused_percent`` of requests get 503 SlowDown; with
    ``delay_seconds`` every byte to and from S3 takes so long (plain HTTP only)."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise SystemExit(
            "the benchmarks need nginx on PATH (Debian: nginx-light); the rest is fetched by itself"
        )
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "pages").mkdir(parents=True)
    (directory / "pages" / "0.xml").write_text(_NO_OBJECTS)
    _certificate(directory)
    port, tls_port = free_port(), free_port()
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(directory=directory, port=port, tls_port=tls_port, refused=refused_percent or "0.01")
        if refused_percent
        else _CONFIG.format(directory=directory, port=port, tls_port=tls_port, refused="0.01").replace(
            "if ($unlucky)", "if ($unlucky = never)"
        )
    )
    process = subprocess.Popen([nginx, "-c", str(config), "-p", str(directory)], stderr=subprocess.PIPE)
    sts = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sts)
    threading.Thread(target=sts.serve_forever, daemon=True).start()
    near_url = f"http://127.0.0.1:{port}"
    with ExitStack() as ended:
        ended.callback(sts.server_close)
        ended.callback(sts.shutdown)
        ended.callback(process.wait)
        ended.callback(process.terminate)
        _wait_for(near_url, process)
        yield Sink(
            ended.enter_context(_far_away(near_url, delay_seconds)) if delay_seconds else near_url,
            f"https://localhost:{tls_port}",
            f"http://127.0.0.1:{sts.server_address[1]}",
            directory / "cert.pem",
            directory,
            near_url,
        )


@contextmanager
def _far_away(url: str, seconds: float) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("delay.py")), url, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            assert process.stderr is not None
            raise SystemExit(f"nginx did not start: {process.stderr.read().decode()}")
        try:
            urlopen(f"{url}/healthy").read()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nginx did not answer")


def _certificate(directory: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")],
        check=True,
        capture_output=True,
    )


class _Sts(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: in two, the second waits 40 ms for an acknowledgement

    asked = 0

    def do_POST(self) -> None:
        _Sts.asked += 1
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        if form["Action"] == ["GetCallerIdentity"]:
            body = (
                "<GetCallerIdentityResponse><GetCallerIdentityResult>"
                "<Arn>arn:aws:iam::366810793500:user/xmode-data-transfer</Arn><UserId>A</UserId>"
                "<Account>366810793500</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
            )
        else:
            account = form["RoleArn"][0].split(":")[4]
            name = form["RoleSessionName"][0]
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
            body = (
                "<AssumeRoleResponse><AssumeRoleResult><AssumedRoleUser>"
                f"<Arn>arn:aws:sts::{account}:assumed-role/XMode/{name}</Arn><AssumedRoleId>A:{name}</AssumedRoleId>"
                f"</AssumedRoleUser><Credentials><AccessKeyId>ASIA{'B' * 16}</AccessKeyId>"
                f"<SecretAccessKey>{'s' * 40}</SecretAccessKey><SessionToken>{'t' * 400}</SessionToken>"
                f"<Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            )
        data = body.encode()
        self.send_response(200)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def lay_pages(directory: Path, keys: Iterator[tuple[str, int]]) -> None:
    """A listing of these keys for peers that compare by listing: pages of 1,000, in the order of keys, as of
    now (s5cmd takes no notice of what is newer than itself)."""
    pages = directory / "pages"
    modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    page: list[str] = []
    number = 0

    def write(*, last: bool) -> None:
        more = "" if last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
        (pages / f"{number}.xml").write_text(
            f'<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>{len(page)}</KeyCount><MaxKeys>1000</MaxKeys>'
            f"<IsTruncated>{'false' if last else 'true'}</IsTruncated>{more}{''.join(page)}</ListBucketResult>"
        )

    for key, size in keys:
        if len(page) == 1000:
            write(last=False)
            page.clear()
            number += 1
        page.append(
            f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>"
            f'<ETag>"0"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
        )
    write(last=True)


def environment(sink: Sink, *, tls: bool = False) -> dict[str, str]:
    """The standard variables with which every client here finds the sink."""
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "XMODE_", "PYTHONDONTWRITE"))
        },
        "AWS_ACCESS_KEY_ID": "AKIA" + "A" * 16,
        "AWS_SECRET_ACCESS_KEY": "s" * 40,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_S3": sink.tls_url if tls else sink.url,
        "AWS_ENDPOINT_URL_STS": sink.sts_url,
        "AWS_CA_BUNDLE": str(sink.certificate),
        "SSL_CERT_FILE": str(sink.certificate),
    }
