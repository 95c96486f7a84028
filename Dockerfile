# CPU by default. On a GPU machine: docker build --build-arg BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime .
ARG BASE=python:3.11-slim
FROM ${BASE}

RUN id -u 1000 >/dev/null 2>&1 || useradd --create-home --uid 1000 user; \
    mkdir -p /home/user/app && chown -R 1000 /home/user
USER 1000
ENV HOME=/home/user \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    PATH=/home/user/.local/bin:$PATH \
    HF_HOME=/home/user/.cache/huggingface \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    PYTHONUNBUFFERED=1
WORKDIR /home/user/app

# The CPU build of torch is a tenth of the CUDA one: take it where the base brings no torch.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --chown=1000 requirements.txt .
RUN python -c "import torch" 2>/dev/null \
    || pip install --no-cache-dir --user "$(grep ^torch requirements.txt)" --index-url ${TORCH_INDEX}
RUN pip install --no-cache-dir --user -r requirements.txt

COPY --chown=1000 . .
EXPOSE 7860
CMD ["python", "app.py"]
