# tvrkit in a container. With a GPU: docker build -t tvrkit:cuda . (the torch wheel brings CUDA itself, 2.7 GB).
# Without: docker build --build-arg TORCH_INDEX=URL -t tvrkit . where URL is PyTorch's package index of CPU builds
# (0.2 GB; its address is in PyTorch's installation guide). How it is built, run and checked: docs/containers.md

FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=""
RUN python3 -m venv /opt/venv
WORKDIR /build
COPY requirements.txt requirements-clip.txt ./
# torch first and from its own index where one is given; no CUDA base image: the libraries would be there twice
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
        "$(grep '^torch==' requirements.txt)"
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check -r requirements.txt \
    && /opt/venv/bin/pip install --disable-pip-version-check --no-deps -r requirements-clip.txt

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends 'tini=0.19.*' \
    && rm -rf /var/lib/apt/lists/*

# /cache is the home of everything that libraries like to write; open to any uid, so that --user works too
RUN groupadd --gid 10001 tvrkit \
    && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin tvrkit \
    && install -d -m 1777 -o tvrkit -g tvrkit /cache /out \
    && install -d /data /app/data \
    && ln -s /out /app/data/work
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=tvrkit \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    TORCH_HOME=/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /app
VOLUME ["/data", "/out", "/cache"]
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "python", "cli.py"]
CMD ["--help"]

COPY --from=build /opt/venv /opt/venv
# last, so that a change of the code rebuilds only this; owned by root, so that no run can change it
COPY . /app

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tvrkit" \
      org.opencontainers.image.description="Text-video retrieval: preprocessing, training, evaluation, search" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="(Apache-2.0 OR BSD-2-Clause) AND 0BSD AND Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND CC0-1.0 AND CNRI-Python AND GPL-2.0-or-later AND GPL-3.0-or-later AND LGPL-2.1-only AND LGPL-3.0-or-later AND LicenseRef-WordNet AND LicenseRef-matplotlib AND MIT AND MIT-CMU AND MPL-2.0 AND OLDAP-2.8 AND PSF-2.0 AND Zlib" \
      org.opencontainers.image.documentation="/app/docs/licences.md"
