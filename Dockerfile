# wsiseg in a container, offline once it is built, as a user who is not root:
#
#   docker build --target cpu -t wsiseg .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" wsiseg annotate slides -o out
#   docker build --target cuda -t wsiseg:cuda .      # run it with --gpus all
#
# From the usual index torch comes with CUDA: large, and good for both. For a small image of the CPU
# give PyTorch's own index of CPU wheels: --build-arg TORCH_INDEX=<address>.
# Encoders from the hub: fetch their files first (`wsiseg model list` says how) and mount them.

# The wheels bring their own libraries; only Triton, on a GPU, wants a C compiler of Debian. Versions
# are the newest that pyproject.toml admits, as for anybody who installs wsiseg: hence no pins.

FROM python:3.12-slim AS wheel
WORKDIR /source
# hadolint ignore=DL3013
RUN pip install --no-cache-dir build
COPY . .
RUN python -m build --wheel --outdir /wheels .

FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    HF_HUB_OFFLINE=1 NUMBA_CACHE_DIR=/var/cache/wsiseg HOME=/tmp
RUN useradd --create-home --uid 1000 wsiseg && install -d -o wsiseg -m 1777 /var/cache/wsiseg
COPY --from=wheel /wheels /wheels
WORKDIR /data
ENTRYPOINT ["wsiseg"]
CMD ["--help"]

FROM base AS cpu
ARG TORCH_INDEX=""
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then pip install torch --index-url "$TORCH_INDEX"; fi \
    && pip install "$(ls /wheels/*.whl)[cloud,cluster,encoders,parquet,view]" && rm -r /wheels
USER 1000
RUN wsiseg doctor && wsiseg demo --quick --out /tmp/demo && rm -r /tmp/demo \
    && chmod -R a+rwX /var/cache/wsiseg

FROM base AS cuda
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# hadolint ignore=DL3013
RUN pip install "$(ls /wheels/*.whl)[cloud,cluster,encoders,parquet,view]" && rm -r /wheels
USER 1000
RUN wsiseg doctor && wsiseg demo --quick --out /tmp/demo && rm -r /tmp/demo \
    && chmod -R a+rwX /var/cache/wsiseg
