# The application on a CPU, behind a proxy; deploy/compose.yaml runs it with one and a database.
#
#   docker build --tag alexnet --build-arg TORCH_INDEX=URL .
#
# TORCH_INDEX: the package index with builds of torch without CUDA (docs/installation.md); not needed
# where pip's own index has them.

FROM python:3.11-slim-bookworm AS packages
WORKDIR /opt/alexnet
RUN python -m venv .venv
COPY pyproject.toml constraints.txt ./
COPY deploy/install.py deploy/
ARG TORCH_INDEX=
RUN .venv/bin/python deploy/install.py --build cpu --extra postgres --no-project \
 && .venv/bin/python -m pip uninstall --yes pip

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp alexnet \
 && install -d -o alexnet -g alexnet /var/lib/alexnet
WORKDIR /opt/alexnet
COPY --from=packages /opt/alexnet/.venv .venv
COPY pyproject.toml constraints.txt gunicorn.conf.py LICENSE ./
COPY storage storage
COPY model model
COPY index index
COPY templates templates
COPY app app
COPY experiments/results/findings.json experiments/results/
# The root file system may be read-only: nothing is written but ALEXNET_HOME and /tmp.
RUN .venv/bin/python -m compileall -q app index model storage
ENV PATH=/opt/alexnet/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    ALEXNET_HOME=/var/lib/alexnet
VOLUME /var/lib/alexnet
USER alexnet
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=9)"]
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:create_app()"]
