# The service as an image: two stages, so that neither pip nor the build tools are in what runs.
# Before a release, follow the tag with the digest that your registry shows (python:3.13-slim@sha256:...).

FROM python:3.13-slim AS build
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

FROM python:3.13-slim
LABEL org.opencontainers.image.title="xmode-transfer" \
      org.opencontainers.image.description="Delivers data files into customers' own S3 buckets" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/xmode-transfer /opt/xmode-transfer
ENV PATH=/opt/xmode-transfer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XMODE_CONFIG=/etc/xmode-transfer
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
RUN install -d -o 10001 -g 10001 /etc/xmode-transfer /var/lib/xmode-transfer
USER 10001:10001
WORKDIR /var/lib/xmode-transfer
VOLUME ["/var/lib/xmode-transfer"]
HEALTHCHECK --interval=1m --timeout=20s --start-period=30s CMD ["xmode-transfer", "config", "check"]
ENTRYPOINT ["xmode-transfer"]
CMD ["--help"]
