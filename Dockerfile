# One image for the API, the worker and the migrations; the command says which.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
RUN python -m venv /opt/venv
COPY requirements-production.lock .
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements-production.lock

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home alphalab \
    && install --directory --owner=alphalab --mode=0700 /var/lib/alphalab
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /app
COPY . .
# Each workflow that starts loads its modules anew; none is to be compiled each time.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production
USER alphalab
EXPOSE 5000
CMD ["python", "-m", "server"]
