# Serves an exported run. Build the wheel first (make dist), then, with EXTRAS=serve,cuda13 for NVIDIA GPUs:
#   docker build --tag anchor-jax .
#   docker run --publish 8000:8000 --volume "$PWD/c10.zip:/models/model.zip:ro" anchor-jax
FROM python:3.13-slim

ARG EXTRAS=serve
COPY dist/*.whl /tmp/
RUN pip install --no-cache-dir "$(ls /tmp/anchor_jax-*.whl)[$EXTRAS]" && rm /tmp/*.whl

RUN useradd --create-home --uid 1000 server
USER 1000
WORKDIR /home/server

EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["anchor-jax", "serve", "--host=0.0.0.0", "--port=8000"]
CMD ["/models/model.zip"]
