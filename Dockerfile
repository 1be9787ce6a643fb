# The service as an image: two stages, so that neither pip nor the build tools are in what runs.
#
# A tag moves, a digest does not. The tag stands here, so that a build takes Debian's latest mends; a release is
# built from the digest that was tested: --build-arg BASE=python:3.13-slim@sha256:...
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv --without-pip /opt/xmode-transfer \
 && python -m pip --python /opt/xmode-transfer/bin/python install --require-hashes -r requirements/run.txt \
 && python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY xmode_transfer/ xmode_transfer/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && python -m pip --python /opt/xmode-transfer/bin/python install --no-deps /wheel/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="xmode-transfer" \
      org.opencontainers.image.description="Delivers data files into customers' own S3 buckets" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/xmode-transfer /opt/xmode-transfer
ENV PATH=/opt/xmode-transfer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/xmode-transfer \
    XMODE_CONFIG=/etc/xmode-transfer
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot). The empty directories are where a
# read-only root has volumes mounted.
RUN install -d /etc/xmode-transfer/feeds /etc/xmode-transfer/customers \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/xmode-transfer
USER 10001:10001
WORKDIR /var/lib/xmode-transfer
VOLUME ["/var/lib/xmode-transfer"]
EXPOSE 8321
STOPSIGNAL SIGTERM
# An upgrade may migrate a large ledger before the page answers.
HEALTHCHECK --interval=30s --timeout=10s --retries=4 --start-period=10m \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8321, timeout=5); c.request('GET', '/healthz'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["xmode-transfer"]
CMD ["daemon"]
