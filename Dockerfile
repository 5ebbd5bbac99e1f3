# The image of firstview: `serve` unless told otherwise, and every other command.
# What it takes, what it may write and how to run it: docs/deploy.md, "Image".
#
# A build that can be repeated to the byte names the base by its digest:
#   --build-arg PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-trixie@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-trixie

# --- what builds; nothing of it is shipped ------------------------------------------------------
FROM ${PYTHON_IMAGE} AS tools
WORKDIR /src
COPY requirements/bootstrap.txt requirements/
RUN python3 -m venv /tools \
    && /tools/bin/python -m pip install --no-cache-dir --quiet --only-binary :all: \
        --require-hashes -r requirements/bootstrap.txt

# --- what is shipped, in one folder -------------------------------------------------------------
FROM tools AS build
# Compiled here, because whoever runs it may write nowhere near it.
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1
COPY requirements/runtime.txt requirements/
# No package may build itself: there is no compiler in any stage.
RUN /tools/bin/uv venv --quiet --no-project --python python3 /opt/firstview \
    && /tools/bin/uv pip install --quiet --python /opt/firstview/bin/python --no-build \
        --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN /tools/bin/python -m hatchling build --target wheel --directory /wheel \
    && /tools/bin/uv pip install --quiet --python /opt/firstview/bin/python --no-deps --offline \
        /wheel/*.whl

# --- what runs ----------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}
# The base has pip and no bytecode of the standard library; here it has to be the other way round.
RUN stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && rm -rf "$stdlib/ensurepip" "$stdlib"/site-packages/pip* /usr/local/bin/pip* \
    && python3 -m compileall -q -x '/(site|dist)-packages/' "$stdlib" \
    && install -d -o 10001 -g 10001 /var/lib/firstview
COPY --from=build /opt/firstview /opt/firstview

# HOME and TMPDIR: the one folder that may be written to, for whatever a library or SQLite puts
# down for a moment.
ENV PATH=/opt/firstview/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/firstview \
    TMPDIR=/var/lib/firstview \
    FIRSTVIEW_DATA_DIR=/var/lib/firstview \
    FIRSTVIEW_LISTEN=:8080 \
    FIRSTVIEW_ADMIN_LISTEN=:8081

USER 10001:10001
WORKDIR /var/lib/firstview
VOLUME /var/lib/firstview
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# A start may have to read what waits for the bucket; whoever is healthy sooner is believed at once.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 \
    CMD ["firstview", "health"]
ENTRYPOINT ["firstview"]
CMD ["serve"]

# Last, so that a new revision makes no new layer.
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="firstview" \
    org.opencontainers.image.description="A pull-through CDN origin for AI video" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
