# docker build -t hf-tasks .                                    for processors
# docker build -t hf-tasks --build-arg TORCH=cu130 .            for NVIDIA GPUs
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" hf-tasks train recipe.yaml
FROM python:3.11.14-slim-bookworm

# Of https://download.pytorch.org/whl/: cpu, or a version of CUDA.
ARG TORCH=cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface

RUN pip install --index-url "https://download.pytorch.org/whl/${TORCH}" torch torchvision

COPY pyproject.toml README.md LICENSE /source/
COPY recipes /source/recipes
COPY hf_tasks /source/hf_tasks
RUN pip install "/source[mlflow,onnx,tensorboard]" \
    && useradd --create-home --uid 1000 trainer \
    && mkdir -p /cache /data \
    && chown trainer /cache /data \
    && chmod a+rwx /cache

USER trainer
WORKDIR /data
VOLUME /cache
ENTRYPOINT ["hf-tasks"]
CMD ["--help"]
