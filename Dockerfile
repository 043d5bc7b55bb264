# The operator's image. Built by Docker (BuildKit) and by buildah:
#     docker build .      buildah bud --isolation chroot --network host --layers .
# BASE_IMAGE    the base image: Python 3.11 or newer with venv, and CA certificates. WordNet (Debian's wordnet-base,
#               which the grader METEOR reads) is installed with apt-get if it is missing.
# PYPI_INDEX    a package index in place of PyPI, without credentials: build arguments stay in an image's history.
# Secret `ca`   (--secret id=ca,src=FILE) a CA bundle to trust for that index; it is not stored in the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# The build tools, which are in no image: uv and hatchling.
FROM ${BASE_IMAGE} AS tools
ARG PYPI_INDEX=""
COPY locks/build.txt /locks/build.txt
RUN --mount=type=secret,id=ca,target=/run/ca.pem \
    set -eu; \
    [ ! -s /run/ca.pem ] || export PIP_CERT=/run/ca.pem; \
    [ -z "${PYPI_INDEX}" ] || export PIP_INDEX_URL="${PYPI_INDEX}"; \
    python3 -m venv /tools; \
    /tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /locks/build.txt

# The locked packages. Bytecode is left out where it would not be read: the Kubernetes client would have 60 MB of it, and
# loads its modules one at a time, on first use.
FROM tools AS packages
ARG PYPI_INDEX=""
COPY locks/operator.txt /locks/operator.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca,target=/run/ca.pem \
    set -eu; \
    [ ! -s /run/ca.pem ] || export SSL_CERT_FILE=/run/ca.pem; \
    [ -z "${PYPI_INDEX}" ] || export UV_DEFAULT_INDEX="${PYPI_INDEX}"; \
    export UV_LINK_MODE=copy; \
    /tools/bin/uv venv --no-python-downloads --python python3 /opt/venv; \
    /tools/bin/uv pip install --require-hashes --python /opt/venv -r /locks/operator.txt; \
    /opt/venv/bin/python -m compileall -q -x /kubernetes/ /opt/venv/lib; \
    /opt/venv/bin/python -c 'import kopf; from kubernetes.aio.client import ApiClient; from kubernetes.aio import config'

# Our code, installed where the final image has its packages.
FROM tools AS code
COPY pyproject.toml README.md LICENSE* /src/
COPY operator/src /src/operator/src
RUN set -eu; \
    cd /src; \
    /tools/bin/python -m hatchling build --target wheel --directory /wheel; \
    /tools/bin/uv venv --quiet --no-python-downloads --python python3 /opt/venv; \
    /tools/bin/uv pip install --no-cache --offline --no-deps --compile-bytecode --python /opt/venv /wheel/*.whl; \
    rm -f /opt/venv/bin/finetune-trainer /opt/venv/bin/kubectl-finetune /opt/venv/bin/kubectl_complete-finetune

FROM ${BASE_IMAGE}
RUN set -eu; \
    if ! dpkg --status wordnet-base >/dev/null 2>&1; then \
        apt-get update; \
        apt-get install --yes --no-install-recommends wordnet-base; \
        rm -rf /var/lib/apt/lists/*; \
    fi
RUN echo 'nonroot:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd; \
    echo 'nonroot:x:65532:' >> /etc/group
COPY --from=packages /opt/venv /opt/venv

LABEL org.opencontainers.image.title="finetune-operator" \
      org.opencontainers.image.description="The Kubernetes operator that fine-tunes, evaluates and serves language models" \
      org.opencontainers.image.licenses="Apache-2.0"
# Only /tmp is written to, where a Pod with a read-only root file system mounts an emptyDir.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["finetune-operator"]
# Last, because it changes most often.
COPY --from=code /opt/venv /opt/venv
